package ir_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/ir"
)

// docs/ops.md says what the op table says. VITGEN_UPDATE=1 rewrites it.
func TestOpsDoc(t *testing.T) {
	const path = "../docs/ops.md"
	want := ir.OpsMarkdown()
	if os.Getenv("VITGEN_UPDATE") == "1" {
		if err := os.MkdirAll("../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/ops.md is stale; run: VITGEN_UPDATE=1 go test ./ir -run TestOpsDoc\n%s", diff)
	}
}

// Every row is complete, and its text names what the op reads and gives.
func TestOpTable(t *testing.T) {
	names := map[string]bool{}
	for _, op := range ir.Ops() {
		info := op.Info()
		if info.Name == "" || info.Shape == nil || info.Doc == "" || len(info.Results) == 0 {
			t.Errorf("op %d (%q) has an incomplete row", op, info.Name)
			continue
		}
		if names[info.Name] {
			t.Errorf("two ops are called %s", info.Name)
		}
		names[info.Name] = true
		if found, ok := ir.OpByName(info.Name); !ok || found != op {
			t.Errorf("%s is not found by its name", op)
		}
		if !strings.HasSuffix(info.Doc, ".") {
			t.Errorf("%s: doc is no sentence", op)
		}
		checkRule(t, op)
		checkRandom(t, op)
	}
	if _, ok := ir.OpByName("conv"); ok {
		t.Error("an op that does not exist is found")
	}
}

func checkRule(t *testing.T, op ir.Op) {
	t.Helper()
	info := op.Info()
	left, right, ok := strings.Cut(info.Rule, "→")
	if !ok {
		t.Errorf("%s: shape rule %q has no arrow", op, info.Rule)
	}
	for _, side := range []struct {
		text  string
		names []string
	}{{left, info.Args}, {right, info.Results}} {
		words := strings.Fields(side.text)
		for _, name := range side.names {
			if !slices.Contains(words, strings.TrimSuffix(name, "…")) {
				t.Errorf("%s: shape rule %q does not name %s", op, info.Rule, name)
			}
		}
	}
}

// A random op says with what probability and at which site it draws.
func checkRandom(t *testing.T, op ir.Op) {
	t.Helper()
	has := func(key string, kind ir.AttrKind) bool {
		return slices.Contains(op.Info().Attrs, ir.AttrSpec{Key: key, Kind: kind})
	}
	if random := op.Info().Effect == ir.Random; random != has("site", ir.AttrInt) || random != has("p", ir.AttrFloat) {
		t.Errorf("%s is %s, but its attributes are %v", op, op.Info().Effect, op.Info().Attrs)
	}
}
