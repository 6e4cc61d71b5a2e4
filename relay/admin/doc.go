// Package admin is the operator's door: HTTP and JSON over the unix socket control.sock in the
// data directory, and the client that relayctl knocks with. cmd/relayd hands it the queue, the
// drain and a few functions; it keeps no state of its own but the counters of Metrics.
//
// The socket is mode 0600 from its first moment and answers only root and the user the daemon
// runs as. What it serves:
//
//	GET  /v1/queue                the waiting letters as JSON lines (Item); the query is a Filter
//	GET  /v1/queue/{name}         one letter: a JSON array of Items, one for each domain
//	GET  /v1/queue/{name}/body    the letter as it will be sent
//	POST /v1/queue/{verb}         retry hold schedule route release drop bounce; an Order, answered by a Done
//	POST /v1/edit                 changes who writes and who gets it; an Edit, answered by an Edited
//	GET  /v1/export/{name}        Exported, what an Import needs beside the letter
//	POST /v1/import               an Import and its letter; the answer is an Imported
//	GET  /v1/check                a queue.Report of everything that is wrong with the queue
//	POST /v1/repair               mends what can be mended; a queue.Repaired
//	GET  /v1/pauses               a JSON array of orders.Pauses
//	POST /v1/pause                an orders.Pause, answered by a Paused; /v1/resume alike
//	POST /v1/resume
//	GET  /v1/holds                a JSON array of orders.Rules
//	POST /v1/holds                puts an orders.Rule in force, answered by a Ruled; /v1/holds/rm ends one
//	POST /v1/holds/rm
//	GET  /v1/auth                 who has tried wrong passwords: a JSON array of Guessings
//	POST /v1/auth/clear           a Pardon, answered by a Done
//	POST /v1/users/release        lets out the mail of a user over the limit; a Released
//	GET  /v1/dkim                 a JSON array of Keys
//	POST /v1/dkim                 a KeyOrder, answered by the Keys
//	GET  /v1/dns/{domain}         the records the domain should have and has: records.Lines
//	GET  /v1/dmarc                a JSON array of PendingReports
//	POST /v1/dmarc/send           sends them; a SentReports
//	GET  /v1/tls-reports          a JSON array of TLSCounts
//	POST /v1/tls-reports          a TLSReportOrder, answered by TLSReportSents
//	GET  /v1/devices              a JSON array of Devices
//	GET  /v1/gate                 Gate
//	POST /v1/submit               a drop.Order and its letter; the answer is a Submitted
//	GET  /v1/status               Status
//	GET  /v1/stats                Stats
//	POST /v1/reload               reads the configuration and the users again
//	GET  /metrics                 Prometheus text
//	GET  /debug/pprof/            profiles, here and nowhere else
//
// The TCP listener of [listen] metrics serves /metrics, /healthz and /readyz, and what mail programs ask
// for to set themselves up.
package admin
