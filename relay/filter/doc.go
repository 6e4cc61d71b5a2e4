// Package filter asks programs that others have written what they think of a letter: rspamd (HTTP,
// /checkv2), clamd (INSTREAM) and any milter. relay/intake hands it a letter that has come in whole
// and is not yet answered for, and gets Verdicts: what each program wants done, fields to write, a
// few words for the log. What is done about them is intake's to decide.
//
// The rules here: a letter is read from where it is held, never into memory; all programs are asked
// at the same time; one that is down costs no letter its time-out, and says so once; and whatever a
// program answers is bounded and made harmless before it gets into a header, a reply or the log.
package filter
