// Package delivery drains the queue: it takes what is due, hands each item to a Deliverer,
// decides what the results mean for the letter, reports to its sender and settles.
//
// The order is the promise. Take has put the next attempt off before we dial, in a way that
// outlasts a crash, so a crash never hammers a host. What was delivered is settled first, so nobody gets a
// letter twice because a report could not be written. What failed for good is reported, and the
// report is durable, before it is settled: a crash between the two costs a second report, never
// the only one. Nobody is told about a letter with a null sender. An attempt that ends in a
// panic, in silence or in our own shutdown is a deferral: unknown means temporary.
package delivery
