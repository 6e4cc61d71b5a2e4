# What a person types. Every target needs only Go, gcc and git, unless it says otherwise.
GO        ?= go
BIN       := bin
FUZZTIME  ?= 20s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 0

.PHONY: build run test check fuzz crash bench bench-peers bench-pop3 interop clean

build: ## static binaries in ./bin
	$(GO) build -trimpath -ldflags "-s -w" -o $(BIN)/ ./cmd/relayd ./cmd/relayctl

run: build ## the development office on loopback, mail in ./data
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/relayd --dev

test: ## everything that needs only Go
	$(GO) test ./...

check: ## gofmt, vet, staticcheck, tests with the race detector (needs gcc)
	@unformatted=$$(gofmt -l cmd relay delivery queue pop3 config); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race ./...

fuzz: ## every fuzz target for FUZZTIME each; with FUZZ_UNTIL (seconds since 1970) the ones that matter most share the time till then
	FUZZTIME=$(FUZZTIME) .ci/fuzz

crash: ## 200 kills at random moments and 200 at named steps, and every letter counted
	RELAYD_CRASHES=200 $(GO) test -count=1 -run '^TestCrash' -timeout 30m -v ./cmd/relayd

bench: ## benchmarks and the machine's own limits; never a pass or fail
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-peers: build ## relayd beside Postfix and Dovecot of Debian's packages (installs them; needs root); FLAGS='-peers.letters 500'
	.ci/peers all $(FLAGS)

bench-pop3: build ## the POP3 half of bench-peers
	.ci/peers pop3 $(FLAGS)

interop: build ## real clients and servers from Debian's packages (installs them; needs root)
	.ci/interop

clean:
	rm -rf $(BIN)
