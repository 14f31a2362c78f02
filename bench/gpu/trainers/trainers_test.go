package trainers

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

func TestRunChoosesTheModel(t *testing.T) {
	models := map[string]func() *runtime.Model{}
	for _, name := range []string{"b", "a"} {
		models[name] = func() *runtime.Model { return &runtime.Model{Name: "model " + name, SpecFile: name + ".yaml"} }
	}
	for args, want := range map[string]struct {
		status int
		text   string
	}{
		"--list":   {0, "a\nb\n"},
		"a help":   {0, "trains the model model a (a.yaml)"},
		"b":        {2, "a command is missing"},
		"c verify": {2, "the first argument must be a model"},
		"":         {2, "the first argument must be a model"},
	} {
		var out bytes.Buffer
		status := run(context.Background(), models, strings.Fields(args), &out, &out)
		if status != want.status || !strings.Contains(out.String(), want.text) {
			t.Errorf("%q: status %d, want %d with %q:\n%s", args, status, want.status, want.text, &out)
		}
	}
}
