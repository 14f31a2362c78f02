package spec

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHostile feeds files that try to make work. Each must be answered in
// seconds, with an error or a Spec; the bound is generous because the machine
// may be busy.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const size = maxBytes / 4
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	var constants strings.Builder
	for i := range 6_000 {
		fmt.Fprintf(&constants, "  constant_%d: \"${undefined_%d}\"\n", i, i)
	}
	for name, src := range map[string]string{
		"comments":          fill("#\n"),
		"long comment":      "#" + fill("x"),
		"comments on keys":  fill("#\na: #\n"),
		"dashes":            fill("-\n"),
		"flow":              "[" + fill("[],"),
		"keys":              fill("? a\n"),
		"quotes":            fill("'"),
		"spaces":            fill(" "),
		"anchors":           fill("- &a b\n"),
		"aliases":           "- &a b\n" + fill("- *a\n"),
		"one long value":    "vitgen: " + fill("1"),
		"undefined":         "vitgen: 1\ndefine:\n" + constants.String(),
		"unknown keys":      "vitgen: 1\nmodel:\n" + strings.Repeat("  - linear: {ouput: 1, inptu: 2}\n", 4_000),
		"long expression":   wrap("  - dropout: \"${0" + fill("+0") + "}\"\n"),
		"repeated sum":      wrap("  - repeat: {times: 10000, layers: [{dropout: \"${0" + strings.Repeat("+0", maxText/2-10) + "}\"}]}\n"),
		"repeated mistake":  wrap("  - repeat: {times: 10000, layers: [{dropuot: 1}]}\n"),
		"repeated residual": wrap("  - patch_embed: {patch: 2, out: 4}\n  - repeat: {times: 6000, layers: [{residual: [layernorm, {linear: {out: 4}}]}]}\n"),
		"nested repeats":    wrap(strings.Repeat("  - repeat: {times: 10000, layers: [{repeat: {times: 10000, layers: [{dropout: 2}]}}]}\n", 100)),
	} {
		start := time.Now()
		s, err := Parse("hostile.yaml", []byte(src))
		if took := time.Since(start); took > 60*time.Second {
			t.Errorf("%s: %v", name, took)
		} else {
			t.Logf("%s: %v", name, took)
		}
		if err != nil {
			checkDiagnostics(t, []byte(src), err)
			if n := len(err.Error()); n > 100_000 {
				t.Errorf("%s: %d bytes of errors", name, n)
			}
		} else if s == nil {
			t.Errorf("%s: neither a spec nor an error", name)
		}
	}
}
