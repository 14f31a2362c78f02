package trainer

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a disk that can be full needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskFull: a save that finds no room ends training with an error that says
// how to go on; the checkpoint before is whole, and once there is room the run
// ends as if there always had been.
func TestDiskFull(t *testing.T) {
	long(t)
	m := func() *runtime.Model { return dropoutRun() }
	dir := filepath.Join(smallDisk(t, "300k"), "run")
	status, out, stderr := run(t, context.Background(), m(), "train", "--out", dir, "--every", "3", "--save-every", "1", "--keep-every", "1")
	if status != 1 {
		t.Fatalf("exit %d\n%s%s", status, out, stderr)
	}
	files := checkpoint.NewRun(dir)
	last, err := files.Last()
	if err != nil || last < 3 || last > 23 {
		t.Fatalf("the last checkpoint is of %d, %v", last, err)
	}
	for _, want := range []string{"no space left on device", "the checkpoint of update ", " is intact; when that is mended, go on with\n    ", " train --resume --out " + dir} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
	if _, err := checkpoint.Read(files.Path(last)); err != nil {
		t.Error(err)
	}
	if half, _ := filepath.Glob(filepath.Join(dir, "checkpoints", ".tmp-*")); len(half) > 0 {
		t.Errorf("what there was no room for still takes up room: %v", half)
	}
	// Still no room, still nothing lost.
	if status, _, stderr := run(t, context.Background(), m(), "train", "--resume", "--out", dir); status != 1 || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	if _, err := checkpoint.Read(files.Path(last)); err != nil {
		t.Error(err)
	}

	// Make room, and go on without keeping everything.
	for k := range last {
		if err := os.RemoveAll(files.Path(k)); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, m(), "train", "--resume", "--out", dir, "--keep-every", "0")
	whole := t.TempDir()
	mustRun(t, m(), "train", "--out", whole, "--every", "3", "--save-every", "1", "--keep-every", "0")
	sameOutcome(t, outcome(t, dir), outcome(t, whole))
}

// TestReadOnly: where nothing can be written nothing is trained for nothing.
func TestReadOnly(t *testing.T) {
	disk := smallDisk(t, "4m")
	dir := filepath.Join(disk, "run")
	m := dropoutRun()
	run(t, interrupting(m, 20), m, "train", "--threads", "1", "--out", dir)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	before := outcomeOfInterrupted(t, dir)
	for _, args := range [][]string{{"train", "--resume", "--out", dir}, {"train", "--out", dir, "--overwrite"}, {"train", "--out", filepath.Join(disk, "new")}} {
		status, out, stderr := run(t, context.Background(), dropoutRun(), args...)
		if status != 1 || !strings.Contains(stderr, "read-only file system") || !strings.Contains(stderr, disk) || strings.Contains(out, "epoch 1") {
			t.Errorf("%v: exit %d\n%s%s", args, status, out, stderr)
		}
	}
	sameOutcome(t, outcomeOfInterrupted(t, dir), before)
	// To look at it is not to write to it.
	mustRun(t, dropoutRun(), "replay", dir)
}
