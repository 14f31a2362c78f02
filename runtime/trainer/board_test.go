package trainer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/board"
	"github.com/vitgen/vitgen/runtime/report"
)

// shown is what a page had been told when the run was over.
type shown struct {
	Run         board.Run
	Records     []report.Record
	Predictions struct {
		Same, Missed         []struct{ Picture, Guess, Truth string }
		Step, Wrong, Samples int
	}
	End struct{ Status, Text string }
}

// tell is one event of the stream.
func (s *shown) tell(t *testing.T, name, data string) {
	var err error
	switch name {
	case "run":
		err = json.Unmarshal([]byte(data), &s.Run)
	case "records":
		var news struct{ Records []report.Record }
		err = json.Unmarshal([]byte(data), &news)
		s.Records = append(s.Records, news.Records...)
	case "progress":
		var p struct{ Phase string }
		if err = json.Unmarshal([]byte(data), &p); p.Phase != "training" && p.Phase != "validating" {
			t.Errorf("phase %q", p.Phase)
		}
	case "predictions":
		err = json.Unmarshal([]byte(data), &s.Predictions)
	case "end":
		err = json.Unmarshal([]byte(data), &s.End)
	default:
		t.Errorf("event %q", name)
	}
	if err != nil {
		t.Errorf("%s %s: %v", name, data, err)
	}
}

// follower is a standard output that opens the board's event stream as soon as
// its address is written: training waits until it has.
type follower struct {
	bytes.Buffer
	t    *testing.T
	page chan *shown
}

func (f *follower) Write(p []byte) (int, error) {
	if url, ok := strings.CutPrefix(strings.TrimSpace(string(p)), "board    "); ok {
		resp, err := http.Get(url + "api/events")
		if err != nil {
			f.t.Error(err)
			close(f.page)
			return f.Buffer.Write(p)
		}
		go func() {
			defer resp.Body.Close()
			s, name := &shown{}, ""
			lines := bufio.NewScanner(resp.Body)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
					name = v
				} else if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					s.tell(f.t, name, v)
				}
			}
			f.page <- s
		}()
	}
	return f.Buffer.Write(p)
}

// follow trains with a board and returns what a page was told.
func follow(t *testing.T, ctx context.Context, m *runtime.Model, args ...string) *shown {
	t.Helper()
	out := &follower{t: t, page: make(chan *shown, 1)}
	var stderr bytes.Buffer
	if status := Run(ctx, m, append([]string{"train", "--threads", "1", "--board", ":0"}, args...), out, &stderr); status != 0 {
		t.Fatalf("exit %d\n%s%s", status, out, &stderr)
	}
	if !strings.Contains(out.String(), "\nboard    http://127.0.0.1:") {
		t.Fatalf("no address in\n%s", out)
	}
	return <-out.page
}

func TestTrainBoard(t *testing.T) {
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 2, Seed: 7, ClipNorm: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.25, Momentum: 0.5},
		Schedule: runtime.Schedule{Kind: "cosine", FinalLR: 0.01, WarmupSteps: 4}})
	page := follow(t, context.Background(), m)
	want := readRecords(t, "runs/fake")
	if !reflect.DeepEqual(page.Records, want) || len(want) == 0 {
		t.Errorf("the page has the records\n%+v\nthe run\n%+v", page.Records, want)
	}
	if r := page.Run; r.Model != "fake" || r.Parameters != 650 || r.Data != "digits" || r.Train != 1442 || r.Val != 355 || r.Seed != 7 || r.Updates != 92 ||
		r.Dir != "runs/fake" || r.Batch != "32" || r.Optimizer != "sgd, lr 0.25, momentum 0.5, clip norm 1" || r.Schedule != "cosine to 0.01, 4 updates of warm-up" {
		t.Errorf("the page is of %+v", r)
	}
	if !strings.HasPrefix(page.End.Text, "Final validation accuracy ") || page.End.Status != board.Finished {
		t.Errorf("the end is %+v", page.End)
	}
	checkPredictions(t, page, *want[len(want)-1].ValAcc)

	page = follow(t, interrupting(m, 70), m, "--out", "broken")
	if page.End.Status != board.Interrupted || !strings.Contains(page.End.Text, "of 92") {
		t.Errorf("the end of an interrupted run is %+v", page.End)
	}
	// A run that goes on shows what was before.
	page = follow(t, context.Background(), m, "--out", "broken", "--resume")
	if got := readRecords(t, "broken"); !reflect.DeepEqual(page.Records, got) || len(got) != len(want) {
		t.Errorf("resumed, the page has the records\n%+v\nthe run\n%+v", page.Records, got)
	}
}

// checkPredictions holds the predictions against the data set and the accuracy.
func checkPredictions(t *testing.T, page *shown, acc float64) {
	p := page.Predictions
	if len(p.Same) != maxSpread || len(p.Missed) == 0 || p.Samples != 355 || p.Step != 92 {
		t.Fatalf("%d and %d predictions after update %d", len(p.Same), len(p.Missed), p.Step)
	}
	if got := 1 - float64(p.Wrong)/float64(p.Samples); got < acc-1e-9 || got > acc+1e-9 {
		t.Errorf("%d of %d are wrong; the accuracy is %v", p.Wrong, p.Samples, acc)
	}
	from := source{name: "digits"}
	split, err := from.open(digits(32, runtime.Train{}))
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]uint8, 64)
	for i, s := range p.Same {
		label, err := split.Val.Sample(i*(355/maxSpread), pixels)
		if err != nil || s.Truth != split.Val.Classes()[label] || !strings.HasPrefix(s.Picture, "data:image/png;base64,") {
			t.Errorf("sample %d is said to be %s; it is %d, %v", i, s.Truth, label, err)
		}
	}
	for _, m := range p.Missed {
		if m.Guess == m.Truth {
			t.Errorf("a mistake is right: %s", m.Guess)
		}
	}
}

// An address that cannot be had is said before anything is made.
func TestBoardAddress(t *testing.T) {
	t.Chdir(t.TempDir())
	other, err := board.Start(":0", board.Run{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken := strings.Trim(strings.TrimPrefix(other.URL(), "http:"), "/")
	for addr, want := range map[string]struct {
		status int
		text   string
	}{
		taken:          {1, taken + " is in use"},
		"0.0.0.0:8080": {2, "ssh -L 8080"},
		"here":         {2, "no address"},
	} {
		status, _, stderr := run(t, context.Background(), digits(32, runtime.Train{Epochs: 1}), "train", "--board", addr)
		if status != want.status || !strings.Contains(stderr, want.text) {
			t.Errorf("--board %s: exit %d, %s", addr, status, stderr)
		}
	}
	if _, err := os.Stat("runs"); err == nil {
		t.Error("a run was begun")
	}
}
