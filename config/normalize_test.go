package config_test

import (
	"testing"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/users"
)

// An alias and a user of the same name must meet, however either was typed.
func TestNormalizeLocalAgreesWithUsers(t *testing.T) {
	t.Parallel()
	for _, local := range []string{"ann", "ANN", "É", "e\u0301", "E\u0301", "\u212a", "\u0130", "ΑΣ", "ß", "\u1e9e", "A\u030a", "\u2126", "a\xff"} {
		got := config.NormalizeLocal(local)
		if want := users.Normalize(relay.Address{Local: local}).Local; got != want {
			t.Errorf("%q: %q here, %q in users", local, got, want)
		}
		if again := config.NormalizeLocal(got); again != got {
			t.Errorf("%q becomes %q and then %q", local, got, again)
		}
	}
}
