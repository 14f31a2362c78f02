package trainer

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// TestReplay: the updates that led to a checkpoint give the same again, from the
// start of training as from any checkpoint before, and what differs is named.
func TestReplay(t *testing.T) {
	t.Chdir(t.TempDir())
	mustRun(t, dropoutRun(), "train", "--out", "x", "--save-every", "5", "--keep-every", "5")
	for args, from := range map[string]string{
		"replay x": "updates 21 … 24 again, from x/checkpoints/000020\n",
		"replay x/checkpoints/000024 --steps 7 --threads 1":        "updates 16 … 24 again, from x/checkpoints/000015\n",
		"replay x/checkpoints/000005":                              "updates 1 … 5 again, from the start of training\n",
		"replay x/checkpoints/000020/ --from x/checkpoints/000005": "updates 6 … 20 again, from x/checkpoints/000005\n",
		"replay x/checkpoints/000020 --steps 20 --device cpu":      "updates 1 … 20 again, from the start of training\n",
	} {
		out := mustRun(t, dropoutRun(), strings.Fields(args)...)
		for _, want := range []string{from, "updates the same\n", "parameters             2 tensors the same\n", "their average          2 tensors the same\n", "optimizer state        4 tensors the same\n", "the same, bit for bit\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", args, want, out)
			}
		}
	}

	out := mustRun(t, dropoutRun(), "info", "--checkpoint", "x")
	for _, want := range []string{"checkpoint  x/checkpoints/000024\n", "updates     24 of 24, 8 an epoch; next is micro-batch 1 of epoch 4\n", "best        accuracy ", "model       fake (fake.yaml)\n",
		"seed        5\n", "data        digits, 1442 training and 355 validation samples ", "it can go on with the run"} {
		if !strings.Contains(out, want) {
			t.Errorf("info: no %q in\n%s", want, out)
		}
	}
	var info checkpointInfo
	if err := json.Unmarshal([]byte(mustRun(t, dropoutRun(), "info", "--checkpoint", "x/checkpoints/000005", "--json")), &info); err != nil || info.State.Updates != 5 || len(info.State.Receipt.DataHash) != 64 {
		t.Errorf("info --json: %+v, %v", info, err)
	}

	// A run from other weights differs at its first loss.
	mustRun(t, dropoutRun(), "train", "--out", "y", "--seed", "6", "--save-every", "5", "--keep-every", "5")
	changed(t, "x", 10, "z", "head.bias")
	kernels := dropoutRun()
	kernels.SpecHash = "beef"
	for _, c := range []struct {
		model  *runtime.Model
		args   string
		status int
		want   string
	}{
		{dropoutRun(), "replay x --from y/checkpoints/000005", 1, "update 6: the loss is "},
		{dropoutRun(), "replay z/checkpoints/000010 --from x/checkpoints/000005", 1, "after update 10, parameters: head.bias differs in 1 of 10 elements, the first is number 3: "},
		{dropoutRun(), "replay x/checkpoints/000005 --from x/checkpoints/000020", 1, "is of update 20, not before update 5 of"},
		{dropoutRun(), "replay x/checkpoints/000005 --from x/checkpoints/000005", 1, "is of update 5, not before update 5 of"},
		{dropoutRun(), "replay x/checkpoints/000005 --steps 6", 2, "more than the 5 updates"},
		{dropoutRun(), "replay", 2, "a checkpoint is missing"},
		{dropoutRun(), "replay nowhere", 1, "nowhere"},
		{dropoutRun(), "replay x/last.safetensors", 1, "name a checkpoint's directory"},
		{dropoutRun(), "replay .", 1, "state.safetensors"},
		{dropoutRun(), "info --checkpoint nowhere", 1, "nowhere"},
		{kernels, "replay x", 1, "cannot be replayed here:\nthe spec was another"},
	} {
		status, out, stderr := run(t, context.Background(), c.model, strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", c.args, status, c.status, c.want, out, stderr)
		}
	}
}

// changed writes a checkpoint of a run into another one, with element 3 of a
// parameter changed.
func changed(t *testing.T, from string, updates int, to, param string) {
	t.Helper()
	m := dropoutRun()
	stored, err := checkpoint.Read(checkpoint.NewRun(from).Path(updates))
	if err != nil {
		t.Fatal(err)
	}
	c, err := stored.Checkpoint(m)
	if err != nil {
		t.Fatal(err)
	}
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Restore(c.Snapshot); err != nil {
		t.Fatal(err)
	}
	v, err := s.Param(param)
	if err != nil {
		t.Fatal(err)
	}
	v[3] += 1e-6
	if err := s.SetParam(param, v); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(c.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.NewRun(to).Save(m, c); err != nil {
		t.Fatal(err)
	}
}
