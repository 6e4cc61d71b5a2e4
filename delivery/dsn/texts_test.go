package dsn

import (
	"strings"
	"testing"
)

// Every sentence is there in every language, with the same blanks to fill in.
func TestTextsAreComplete(t *testing.T) {
	t.Parallel()
	all := []say{
		sayServer, sayLetter, sayOf, sayAlias, sayReason, saySaid, sayNumber, saySeveral, sayDelay, sayUntil, sayNext, sayWait, sayTried,
		saySteadSubject, sayStead, sayIts, sayFor, sayDays, sayHour, sayMins, sayArrived, sayTaken, dates, notPassedOn.what, notPassedOn.todo, justRefused.what, justRefused.todo,
	}
	for _, kind := range []Kind{Failed, Delayed, Delivered, Relayed, AfterAll} {
		all = append(all, subjects[kind], openings[kind])
	}
	for _, e := range explanations {
		all = append(all, e.what, e.todo)
	}
	for _, s := range all {
		for lang, text := range s {
			if text == "" || strings.Count(text, "%s") != strings.Count(s[0], "%s") || strings.Count(text, "%") != strings.Count(text, "%s") {
				t.Errorf("%s of %q: %q", Languages[lang], s[0], text)
			}
		}
	}
	for lang := range months[1:] {
		for i, name := range months[lang+1] {
			if name == "" {
				t.Errorf("%s has no month %d", Languages[lang+1], i+1)
			}
		}
	}
}
