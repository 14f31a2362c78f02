package board

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/report"
)

// stream is a client of the event stream.
type stream struct {
	body  io.ReadCloser
	lines *bufio.Reader
}

// message is one event.
type message struct{ name, id, data string }

// listen connects as a browser does that got the event last before, or none.
func listen(t *testing.T, b *Board, last string) *stream {
	t.Helper()
	r, err := http.NewRequest("GET", b.URL()+"api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &stream{resp.Body, bufio.NewReader(resp.Body)}
}

func (s *stream) close() { s.body.Close() }

// next is the next event; the next of a name, if one is given.
func (s *stream) next(t *testing.T, name string) message {
	t.Helper()
	for {
		var e message
		for {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for an event %q: %v", name, err)
			}
			if line == "\n" {
				break
			}
			field, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !ok {
				t.Fatalf("line %q", line)
			}
			switch field {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "retry", "":
			default:
				t.Fatalf("line %q", line)
			}
		}
		if e.name != "" && (name == "" || e.name == name) {
			return e
		}
	}
}

// records are the steps in an event of records.
func (e message) records(t *testing.T) (steps []int) {
	t.Helper()
	var news struct {
		Whole   bool
		Records []report.Record
	}
	if err := json.Unmarshal([]byte(e.data), &news); err != nil {
		t.Fatalf("%s: %v", e.data, err)
	}
	for _, r := range news.Records {
		steps = append(steps, r.Step)
	}
	return steps
}

func (e message) whole() bool { return strings.HasPrefix(e.data, `{"whole":true`) }

func publish(b *Board, steps ...int) {
	for _, s := range steps {
		b.Publish(report.Record{Kind: report.Interval, Step: s, TrainLoss: 1})
	}
}

func TestStream(t *testing.T) {
	b := start(t)
	early := listen(t, b, "")
	if e := early.next(t, ""); e.name != "run" || !strings.Contains(e.data, `"seed":"9223372036854775809"`) {
		t.Errorf("first comes %+v", e)
	}
	if e := early.next(t, ""); e.name != "records" || !e.whole() || len(e.records(t)) != 0 || e.id == "" {
		t.Errorf("then %+v", e)
	}
	publish(b, 10, 20)
	b.Progress(Progress{Phase: "training", Step: 20, Epoch: 0.5, TrainLoss: 1.25})
	b.Predictions(somePredictions(20))
	b.Progress(Progress{Phase: "training", Step: 25})
	var ids []string
	var steps []int
	for len(steps) < 2 {
		e := early.next(t, "records")
		if e.whole() {
			t.Error("news come as a whole history")
		}
		steps, ids = append(steps, e.records(t)...), append(ids, e.id)
	}
	if steps[0] != 10 || steps[1] != 20 {
		t.Errorf("steps %v", steps)
	}
	early.next(t, "predictions")

	// A late one gets everything, of progress the newest alone.
	late := listen(t, b, "")
	e := late.next(t, "records")
	if got := e.records(t); !e.whole() || len(got) != 2 || e.id != ids[len(ids)-1] {
		t.Errorf("late: %+v", e)
	}
	if e := late.next(t, ""); e.name != "predictions" || !strings.Contains(e.data, "data:image/png;base64,") {
		t.Errorf("late: %s", e.name)
	}
	var at progress
	if e := late.next(t, ""); e.name != "progress" || json.Unmarshal([]byte(e.data), &at) != nil || at.Step != 25 || at.ETA == nil {
		t.Errorf("late: %+v", e)
	}

	// Who comes back gets what is new.
	last := ids[len(ids)-1]
	late.close()
	publish(b, 30, 40)
	again := listen(t, b, last)
	if e := again.next(t, "records"); e.whole() || len(e.records(t)) != 2 || e.records(t)[0] != 30 {
		t.Errorf("again: %+v", e)
	}
	for _, id := range []string{"another-1-2", "x", b.token + "-9-1", b.token + "-1-999", b.token + "--1", last + "-1"} {
		s := listen(t, b, id)
		if e := s.next(t, "records"); !e.whole() || len(e.records(t)) != 4 {
			t.Errorf("with id %q: %+v", id, e)
		}
		s.close()
	}

	b.Finish(Interrupted, "after update 40")
	b.Finish(Finished, "not so")
	if e := early.next(t, "end"); e.data != `{"status":"interrupted","text":"after update 40"}` {
		t.Errorf("the end is %s", e.data)
	}
	if _, err := early.lines.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if e := listen(t, b, "").next(t, "end"); !strings.Contains(e.data, Interrupted) {
		t.Errorf("after the end: %+v", e)
	}
}

// When the history is thinned, clients are given it anew.
func TestStreamThins(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.records.limit = 40
	s := listen(t, b, "")
	seen, wholes := 0, 0
	for k := range 200 {
		publish(b, k)
		if k%50 == 49 {
			for last := -1; last != k; {
				e := s.next(t, "records")
				if steps := e.records(t); len(steps) > 0 {
					last = steps[len(steps)-1]
				}
				if e.whole() {
					seen, wholes = 0, wholes+1
				}
				if seen += len(e.records(t)); seen > 40 {
					t.Fatalf("a client has %d records", seen)
				}
			}
		}
	}
	if wholes < 3 {
		t.Errorf("%d whole histories", wholes)
	}
}

// Close without Finish says that something went wrong.
func TestCloseEarly(t *testing.T) {
	b := start(t)
	s := listen(t, b, "")
	s.next(t, "records")
	go b.Close()
	if e := s.next(t, "end"); !strings.Contains(e.data, Failed) {
		t.Errorf("the end is %s", e.data)
	}
}
