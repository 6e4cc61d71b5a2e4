package admin_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocListsRoutes: the package's comment has a line for whatever the socket serves.
func TestDocListsRoutes(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`"(GET|POST) (/v1/[^"]*)"`).FindAllStringSubmatch(string(source), -1)
	if len(routes) < 20 {
		t.Fatalf("found %d routes", len(routes))
	}
	for _, r := range routes {
		path := strings.Replace(r[2], "...", "", 1)
		if !regexp.MustCompile(`(?m)^//\t` + r[1] + ` +` + regexp.QuoteMeta(path) + `( |$)`).Match(doc) {
			t.Errorf("doc.go says nothing of %s %s", r[1], path)
		}
	}
}
