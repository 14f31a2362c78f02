package measure

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestMedian(t *testing.T) {
	v := []float64{9, 1, 5, 3}
	if got := Median(v); got != 4 {
		t.Errorf("median of four: %g", got)
	}
	if got := Median(v[:3]); got != 5 {
		t.Errorf("median of three: %g", got)
	}
	if v[0] != 9 {
		t.Error("median sorted its argument")
	}
}

func TestWriteKeepsFiguresAndReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "results")
	if err := Write(dir, "2026-01-02-cpu", map[string]int{"a": 1}, "# report\n"); err != nil {
		t.Fatal(err)
	}
	var figures map[string]int
	data, err := os.ReadFile(filepath.Join(dir, "2026-01-02-cpu.json"))
	if err == nil {
		err = json.Unmarshal(data, &figures)
	}
	if err != nil || figures["a"] != 1 {
		t.Errorf("figures %v, error %v", figures, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "2026-01-02-cpu.md")); err != nil || string(text) != "# report\n" {
		t.Errorf("report %q, error %v", text, err)
	}
}
