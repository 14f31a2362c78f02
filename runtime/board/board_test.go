package board

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime/report"
)

func start(t *testing.T) *Board {
	t.Helper()
	b, err := Start(":0", aRun())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		":8080": "127.0.0.1:8080", "8080": "127.0.0.1:8080", ":0": "127.0.0.1:0", "localhost:80": "127.0.0.1:80",
		"127.0.0.2:1": "127.0.0.2:1", "[::1]:65535": "[::1]:65535",
	} {
		if got, err := Address(addr); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", addr, got, err, want)
		}
	}
	for addr, want := range map[string]string{
		"": "no address", "x": "no address", ":": "no address", ":http": "no address", ":65536": "no address", "::1": "no address", "-1": "no address",
		"0.0.0.0:8080": "ssh -L 8080:127.0.0.1:8080", "[::]:80": "this machine alone", "192.168.0.1:80": "this machine alone", "example.org:80": "this machine alone",
	} {
		if got, err := Address(addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %q, %v; want an error with %q", addr, got, err, want)
		}
	}
}

func TestPortInUse(t *testing.T) {
	b := start(t)
	addr := strings.TrimSuffix(strings.TrimPrefix(b.URL(), "http://"), "/")
	if _, err := Start(addr, aRun()); err == nil || !strings.Contains(err.Error(), addr+" is in use") {
		t.Errorf("the second board: %v", err)
	}
}

// ask makes a request and returns status, headers and body.
func ask(t *testing.T, method, url string, change func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// Somebody else's name for this machine is refused; so is all but reading.
func TestRequests(t *testing.T) {
	b := start(t)
	for host, want := range map[string]int{
		"127.0.0.1:9": 200, "localhost": 200, "LOCALHOST:1234": 200, "[::1]:80": 200, "::1": 200,
		"evil.example": 403, "evil.example:80": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "192.168.1.2": 403, "0.0.0.0": 403, "[": 403,
	} {
		for _, path := range []string{"", "api/run", "api/records"} {
			if status, _, _ := ask(t, "GET", b.URL()+path, func(r *http.Request) { r.Host = host }); status != want {
				t.Errorf("/%s of %s: %d, want %d", path, host, status, want)
			}
		}
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{{"HEAD", "", 200}, {"HEAD", "api/events", 200}, {"POST", "", 405}, {"PUT", "api/run", 405}, {"DELETE", "api/events", 405}, {"OPTIONS", "", 405}, {"GET", "else", 404}, {"GET", "page/page.js", 404}} {
		if status, _, _ := ask(t, c.method, b.URL()+c.path, nil); status != c.want {
			t.Errorf("%s /%s: %d, want %d", c.method, c.path, status, c.want)
		}
	}
}

func TestHeadersAndAssets(t *testing.T) {
	b := start(t)
	_, header, page := ask(t, "GET", b.URL(), nil)
	policy := header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("policy %s", policy)
	}
	for _, tag := range []string{"style", "script"} {
		text := regexp.MustCompile(`(?s)<` + tag + `>(.+?)</` + tag + `>`).FindStringSubmatch(page)
		if text == nil || !strings.Contains(policy, tag+"-src '"+sourceHash([]byte(text[1]))+"'") {
			t.Errorf("the policy does not allow the page's %s", tag)
		}
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	const svgNamespace = "http://www.w3.org/2000/svg"
	_, _, icon := ask(t, "GET", b.URL()+"icon.svg", nil)
	for _, forbidden := range []string{"://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "@import", "url("} {
		if strings.Contains(strings.ReplaceAll(page+icon, svgNamespace, ""), forbidden) {
			t.Errorf("the page has %s", forbidden)
		}
	}
	var state struct {
		Run      Run
		Progress *Progress
		End      *ending
	}
	_, header, text := ask(t, "GET", b.URL()+"api/run", nil)
	if err := json.Unmarshal([]byte(text), &state); err != nil || state.Run != aRun() || state.Progress != nil || state.End != nil {
		t.Errorf("api/run: %s %v", text, err)
	}
	if header.Get("Content-Type") != "application/json" {
		t.Errorf("api/run is %s", header.Get("Content-Type"))
	}
}

func TestHistory(t *testing.T) {
	h := newHistory()
	h.limit = 100
	best := 0.0
	random := rand.New(rand.NewPCG(1, 2))
	var at place
	for k := 1; k <= 5000; k++ {
		r := report.Record{Kind: report.Interval, Step: k, TrainLoss: random.ExpFloat64()}
		if k%7 == 0 {
			acc, loss := random.Float64(), random.Float64()
			r.Kind, r.ValAcc, r.ValLoss = report.Epoch, &acc, &loss
			best = max(best, acc)
		}
		before := at.generation
		h.add(r)
		var records []json.RawMessage
		var whole bool
		if records, whole, at = h.since(at); whole != (at.generation != before) || !whole && len(records) != 1 || whole && len(records) != len(h.entries) {
			t.Fatalf("record %d: %d records, whole %v", k, len(records), whole)
		}
		if len(h.entries) > h.limit {
			t.Fatalf("%d records are kept", len(h.entries))
		}
	}
	if len(h.entries) < h.limit/3 || h.entries[0].record.Step != 1 || h.entries[len(h.entries)-1].record.Step != 5000 {
		t.Errorf("%d records from %d to %d are kept", len(h.entries), h.entries[0].record.Step, h.entries[len(h.entries)-1].record.Step)
	}
	gotBest, last := 0.0, 0
	for _, e := range h.entries {
		if e.record.Step <= last {
			t.Fatalf("step %d after %d", e.record.Step, last)
		}
		if last = e.record.Step; e.record.ValAcc != nil {
			gotBest = max(gotBest, *e.record.ValAcc)
		}
	}
	if gotBest != best {
		t.Errorf("the best accuracy kept is %v of %v", gotBest, best)
	}
	for _, p := range []place{{at.generation - 1, at.last}, {at.generation, at.last + 1}, {at.generation, -1}, {99, 0}} {
		if records, whole, _ := h.since(p); !whole || len(records) != len(h.entries) {
			t.Errorf("since %v: %d records, whole %v", p, len(records), whole)
		}
	}
}

// A curve keeps its spikes however often it is thinned.
func TestThinningKeepsExtremes(t *testing.T) {
	h := newHistory()
	h.limit = 64
	for k := range 3000 {
		loss := 1.0
		switch k {
		case 1234:
			loss = 9
		case 2222:
			loss = 0.1
		}
		h.add(report.Record{Kind: report.Interval, Step: k, TrainLoss: loss})
	}
	found := map[float64]int{}
	for _, e := range h.entries {
		found[e.record.TrainLoss] = e.record.Step
	}
	if found[9] != 1234 || found[0.1] != 2222 {
		t.Errorf("extremes at %d and %d", found[9], found[0.1])
	}
}

func TestEncode(t *testing.T) {
	loss, acc := math.NaN(), 0.5
	got := string(encode(report.Record{Kind: report.Epoch, Step: 3, Epoch: 1, TrainLoss: math.Inf(1), ValLoss: &loss, ValAcc: &acc, LR: 0.1}))
	var back map[string]any
	if err := json.Unmarshal([]byte(got), &back); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if back["train_loss"] != nil || back["val_loss"] != nil || back["val_acc"] != 0.5 || back["lr"] != 0.1 || back["kind"] != "epoch" || back["step"] != 3.0 {
		t.Error(got)
	}
}

func TestPictures(t *testing.T) {
	p := somePredictions(7)
	p.Same[0].Probability = math.NaN()
	var back struct {
		Step int
		Same []struct {
			Picture, Guess, Truth string
			Probability           *float64
			Width, Height         int
		}
		Missed []any
	}
	if err := json.Unmarshal((&gallery{shown: p}).encode(), &back); err != nil {
		t.Fatal(err)
	}
	second := back.Same[1]
	if back.Step != 7 || len(back.Same) != 12 || len(back.Missed) != 12 || back.Same[0].Probability != nil ||
		second.Guess != "1" || *second.Probability != 0.97 || second.Width != 8 || second.Height != 8 {
		t.Errorf("%+v", back)
	}
	data, ok := strings.CutPrefix(second.Picture, "data:image/png;base64,")
	picture, err := png.Decode(base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)))
	if !ok || err != nil || picture.At(3, 4) != digit(1).At(3, 4) {
		t.Errorf("picture %s: %v", second.Picture, err)
	}
}

// A run without a board calls the same methods.
func TestNilBoard(t *testing.T) {
	var b *Board
	b.Publish(report.Record{})
	b.Progress(Progress{})
	b.Predictions(Predictions{})
	b.Finish(Finished, "")
	if err := b.Close(); err != nil || b.URL() != "" {
		t.Errorf("%v %q", err, b.URL())
	}
}

// Publishing does not wait for a client that reads nothing, and neither does
// the end of the run, for long.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	b := start(t)
	conn, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(b.URL(), "http:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for b.watched() == 0 {
		time.Sleep(time.Millisecond)
	}
	noise := image.NewRGBA(image.Rect(0, 0, 128, 128))
	for i := range noise.Pix {
		noise.Pix[i] = uint8(rand.Uint32())
	}
	big := Predictions{Same: make([]Prediction, maxPictures), Missed: make([]Prediction, maxPictures)}
	for i := range maxPictures {
		big.Same[i].Picture, big.Missed[i].Picture = noise, noise
	}
	slowest := time.Duration(0)
	for k := range 6 { // of 4 MB each: more than sockets hold
		for i := range 100 {
			before := time.Now()
			b.Publish(report.Record{Kind: report.Interval, Step: 100*k + i})
			b.Progress(Progress{Step: 100*k + i})
			b.Predictions(big)
			slowest = max(slowest, time.Since(before))
		}
		time.Sleep(pace)
	}
	if slowest > time.Second/2 {
		t.Errorf("publishing took %v", slowest)
	}
	if b.watched() != 1 {
		t.Error("the slow client is gone: nothing was tested")
	}
	quick := listen(t, b, "")
	if e := quick.next(t, "records"); len(e.records(t)) != 600 {
		t.Errorf("another client gets %d records", len(e.records(t)))
	}
	quick.close()
	before := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(before); took < lastWords/2 || took > lastWords+2*time.Second {
		t.Errorf("Close took %v; it waits %v for a client that does not read", took, lastWords)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := start(t)
	var streams []*stream
	for range maxClients {
		streams = append(streams, listen(t, b, ""))
	}
	if status, _, body := ask(t, "GET", b.URL()+"api/events", nil); status != 503 || !strings.Contains(body, "close some") {
		t.Errorf("one too many: %d %s", status, body)
	}
	var all sync.WaitGroup
	for from := range 4 {
		all.Go(func() {
			train(b, 100*from, 100*from+100)
			b.Predictions(somePredictions(from))
		})
	}
	all.Wait()
	b.Finish(Finished, "over")
	want := 0
	for k := range 401 {
		if k%23 == 12 {
			want++
		} else if k > 0 && k%23 == 0 {
			want += 2
		}
	}
	for _, s := range streams {
		got := 0
		for e := s.next(t, ""); e.name != "end"; e = s.next(t, "") {
			if e.name == "records" {
				got += len(e.records(t))
			}
		}
		if got != want {
			t.Fatalf("a client got %d of %d records", got, want)
		}
		if _, err := s.lines.ReadByte(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	}
}
