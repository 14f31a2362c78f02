package cxx

import (
	"testing"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
)

// TestEveryOpIsEmitted walks the op table: what fusion may put into a functor
// the printer must be able to write.
func TestEveryOpIsEmitted(t *testing.T) {
	for _, op := range ir.Ops() {
		if elementwise := passes.Elementwise(&ir.Node{Op: op}); elementwise && !Emits(op) {
			t.Errorf("%s can stand in a functor, but has no expression", op)
		}
	}
}

// TestLiterals checks that numbers reach C++ as what they are.
func TestLiterals(t *testing.T) {
	for x, want := range map[float64]string{1: "1.0f", 0.1: "0.1f", 1e-5: "1e-05f", -2.5: "-2.5f", 1.0 / 3: "0.33333334f"} {
		if got := Float(x); got != want {
			t.Errorf("Float(%v) = %s, want %s", x, got, want)
		}
	}
	if got := Double(0.999); got != "0.999" {
		t.Errorf("Double(0.999) = %s", got)
	}
	if got := Double(1); got != "1.0" {
		t.Errorf("Double(1) = %s", got)
	}
}
