// Package admin is the operator's door: HTTP and JSON over the unix socket control.sock in the
// data directory, and the client that relayctl knocks with. cmd/relayd hands it the queue, the
// drain and a few functions; it keeps no state of its own but the counters of Metrics.
//
// The socket is mode 0600 from its first moment and answers only root and the user the daemon
// runs as. What it serves:
//
//	GET  /v1/queue                the waiting letters as JSON lines (Item); the query is a Filter
//	GET  /v1/queue/{id}           one letter: a JSON array of Items, one for each domain
//	GET  /v1/queue/{id}/body      the letter as it will be sent
//	POST /v1/queue/{verb}         retry hold release drop bounce; the body is an Order, the answer a Done
//	GET  /v1/devices              a JSON array of Devices
//	GET  /v1/gate                 Gate
//	GET  /v1/check                a queue.Report of everything that is wrong with the queue
//	POST /v1/repair               mends what can be mended; a queue.Repaired
//	POST /v1/submit               a drop.Order and its letter; the answer is a Submitted
//	GET  /v1/status               Status
//	GET  /v1/stats                Stats
//	POST /v1/reload               reads the configuration and the users again
//	GET  /metrics                 Prometheus text
//	GET  /debug/pprof/            profiles, here and nowhere else
//
// The TCP listener of [listen] metrics serves /metrics, /healthz and /readyz and nothing more.
package admin
