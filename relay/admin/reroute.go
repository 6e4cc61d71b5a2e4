package admin

import (
	"context"
	"net/http"

	"relayd/queue"
	"relayd/relay"
)

// reroute sends items another way. Without one it is an error: an old client would not know.
func (s *Server) reroute(via *string) action {
	return func(ctx context.Context, f queue.Filter, _ string) (int, error) {
		if via == nil {
			return 0, refuse(http.StatusBadRequest, "route by which host?")
		}
		if *via != "" && *via != relay.ViaMX && s.cfg.CheckVia != nil {
			if err := s.cfg.CheckVia(*via); err != nil {
				e := refuse(http.StatusBadRequest, "%.80q is no host: %v", *via, err)
				e.Hint = "such as smarthost.example:587, mx, or config"
				return 0, e
			}
		}
		return s.cfg.Queue.Reroute(ctx, f, *via)
	}
}
