package trainer

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// TestInfoCountsTheAverage: memory that only some models have is in the list and
// in the total.
func TestInfoCountsTheAverage(t *testing.T) {
	memory := func(m *runtime.Model) (i infoResult, text string) {
		if err := json.Unmarshal([]byte(mustRun(t, m, "info", "--json")), &i); err != nil {
			t.Fatal(err)
		}
		return i, mustRun(t, m, "info")
	}
	image := [3]int{1, 8, 8}
	plain, text := memory(fake.New(image, 10, 32, runtime.Train{}))
	if plain.Memory.Average != 0 || strings.Contains(text, "\n  average ") {
		t.Errorf("a model without an average: %+v", plain.Memory)
	}
	both, text := memory(fake.Mix(fake.New(image, 10, 32, runtime.Train{EMA: runtime.EMA{Decay: 0.9}}), 0.2, 0))
	const params = 650 * 4
	if b, p := both.Memory, plain.Memory; b.Average != params || b.Inputs != p.Inputs+2*32*4 || b.Total != p.Total+params+2*32*4 {
		t.Errorf("%+v, without average and second labels %+v", b, p)
	}
	if !strings.Contains(text, "\n  average ") {
		t.Errorf("no average in\n%s", text)
	}
}
