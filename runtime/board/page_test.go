package board

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"math"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/report"
)

// aRun is made up, with the numbers of a small one.
func aRun() Run {
	return Run{
		Model: "vit_tiny", Parameters: 69194, SpecFile: "vit_tiny.yaml", Spec: "name: vit_tiny\nmodel:\n  - linear: {out: 10}\n",
		SpecHash: "0123456789abcdef0123456789abcdef", Generator: "v0.4.0", Device: "cpu (2 threads, avx512)", Precision: "fp32",
		Data: "digits", Train: 1442, Val: 355, Image: [3]int{1, 8, 8}, Seed: 1<<63 + 1, Batch: "64",
		Optimizer: "adamw, lr 0.002, weight decay 0.05", Schedule: "cosine, 46 updates of warm-up", Epochs: 40, Updates: 920, Dir: "runs/vit_tiny",
	}
}

// train publishes updates from … to-1 of a made-up training, records twice an
// epoch of 23.
func train(b *Board, from, to int) {
	for k := from + 1; k <= to; k++ {
		x := float64(k) / 920
		ripple := 0.04 * math.Sin(float64(k))
		r := report.Record{
			Kind: report.Interval, Step: k, Epoch: float64(k) / 23, LR: 0.001 * (1 + math.Cos(math.Pi*x)),
			TrainLoss: 0.51 + 1.8*math.Exp(-7*x) + ripple*math.Exp(-3*x), SamplesPerSec: 5200 + 900*ripple*10, DataWait: 0.004,
		}
		b.Progress(Progress{Phase: "training", Step: k, Epoch: r.Epoch, TrainLoss: r.TrainLoss, LR: r.LR, SamplesPerSec: r.SamplesPerSec})
		if k%23 == 12 || k%23 == 0 {
			b.Publish(r)
		}
		if k%23 == 0 {
			loss, acc := 0.55+1.75*math.Exp(-6.5*x)+ripple/3, 0.985-0.87*math.Exp(-9*x)+ripple/20
			r.Kind, r.ValLoss, r.ValAcc = report.Epoch, &loss, &acc
			b.Publish(r)
		}
	}
}

// digit is a picture of a stroke.
func digit(seed int) image.Image {
	p := image.NewGray(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		d := math.Abs(float64(i%8)-3.5+2.5*math.Sin(float64(i/8+seed)*0.8)) * 90
		p.Pix[i] = uint8(max(0, 255-d))
	}
	return p
}

// hostile is a name that must stay text.
const hostile = `<img src=x onerror=alert(1)>&amp;"`

func somePredictions(step int) Predictions {
	p := Predictions{Step: step, Epoch: float64(step) / 23, Wrong: 17, Samples: 355}
	for i := range 12 {
		name := string(rune('0' + i%10))
		p.Same = append(p.Same, Prediction{digit(i), name, 0.99 - 0.02*float64(i), name})
	}
	p.Same[5].Guess = "9"
	p.Same[6].Guess, p.Same[6].Truth = hostile, hostile
	for i := range 12 {
		p.Missed = append(p.Missed, Prediction{digit(40 + i), string(rune('0' + i)), 0.4 + 0.05*float64(i), string(rune('1' + i))})
	}
	return p
}

// The page in a real browser: it is told things in Go and must show them.
func TestPage(t *testing.T) {
	t.Parallel()
	chrome := openBrowser(t)
	showsRun(t, chrome)
	survivesServer(t, chrome)
	scripts(t, chrome)
}

func showsRun(t *testing.T, chrome *browser) {
	b := start(t)
	chrome.view(1280, 1700, "light")
	chrome.open(b.URL())

	chrome.wait("document.getElementById('model').textContent == 'vit_tiny'")
	chrome.wait("document.querySelector('#chart-loss .empty')")
	chrome.screenshot("empty")
	facts := chrome.text("#facts")
	for _, want := range []string{"digits: 1,442 training, 355 validation samples", "9223372036854775809", "vit_tiny.yaml, 0123456789ab", "40, 920 updates"} {
		if !strings.Contains(facts, want) {
			t.Errorf("no %q in the facts\n%s", want, facts)
		}
	}

	train(b, 0, 460)
	b.Predictions(somePredictions(460))
	chrome.wait("document.body.dataset.records == 60 && document.querySelectorAll('.card').length == 24")
	chrome.wait("document.getElementById('where').textContent.startsWith('Update 460 of 920 · epoch 20 of 40 · 50 %')")
	for selector, want := range map[string]int{
		"#chart-loss path[data-series=train]": 40, "#chart-loss path[data-series=validation]": 20,
		"#chart-acc path[data-points]": 20, "#chart-lr path[data-points]": 40, "#chart-speed path[data-points]": 40,
	} {
		var got struct {
			Points string
			D      string
		}
		chrome.eval("(e => ({points: e.dataset.points, d: e.getAttribute('d')}))(document.querySelector('"+selector+"'))", &got)
		if n := strings.Count(got.D, "L") + 1; got.Points != strconv.Itoa(want) || n != want || strings.Contains(got.D, "NaN") {
			t.Errorf("%s has %s points, %d in its path; want %d", selector, got.Points, n, want)
		}
	}
	last := b.records.entries[len(b.records.entries)-1].record
	for selector, want := range map[string]string{
		"#val-loss": fixedPoint(*last.ValLoss, 4), "#val-acc": fixedPoint(100**last.ValAcc, 2) + " %", "#train-loss": fixedPoint(last.TrainLoss, 4),
		"#lr": "0.001", "#speed-more": "0.4 % waiting for data", "#predictions-more": "after epoch 20: 17 of 355 validation pictures wrong",
	} {
		if got := chrome.text(selector); got != want {
			t.Errorf("%s shows %q, want %q", selector, got, want)
		}
	}
	if got := chrome.text("#same .card:nth-child(6)"); strings.Join(strings.Fields(got), " ") != "✗ wrong guess 9 89 % is 5" {
		t.Errorf("a wrong prediction reads %q", got)
	}
	if got := chrome.text("#same .card:nth-child(7) .truth"); got != "is "+hostile {
		t.Errorf("a hostile name reads %q", got)
	}
	looksRight(t, chrome.screenshot("light"))
	readOut(t, chrome)
	axes(t, chrome)

	chrome.view(1280, 1700, "dark")
	dark := looksRight(t, chrome.screenshot("dark"))
	if r, g, b, _ := dark.At(2, 2).RGBA(); r+g+b > 3*0x4000 {
		t.Error("the dark page is light")
	}
	chrome.view(390, 844, "light")
	chrome.screenshot("narrow")
	var overflow bool
	if chrome.eval("document.documentElement.scrollWidth > innerWidth", &overflow); overflow {
		t.Error("the page is wider than a narrow window")
	}
	chrome.view(390, 4200, "dark")
	chrome.screenshot("narrow-dark")
	chrome.view(1280, 1700, "light")

	train(b, 460, 920)
	b.Finish(Finished, "final validation accuracy 97.75 %")
	b.Close()
	chrome.wait("document.getElementById('status').dataset.state == 'finished'")
	chrome.wait("document.body.dataset.records == 120")
	if got := chrome.text("#note"); got != "final validation accuracy 97.75 %" {
		t.Errorf("the end is %q", got)
	}
	var shown int
	if chrome.eval("[...document.images].filter(i => i.naturalWidth == 8).length", &shown); shown != 24 {
		t.Errorf("%d of 24 pictures are there after the end", shown)
	}
	chrome.screenshot("finished")
	quiet(t, chrome, b.URL())
}

// readOut moves the cursor by keys and by the pointer.
func readOut(t *testing.T, chrome *browser) {
	chrome.eval("document.querySelector('#chart-loss .plot').focus()", nil)
	key := func(name string) {
		chrome.eval("document.querySelector('#chart-loss .plot').dispatchEvent(new KeyboardEvent('keydown', {key: '"+name+"', bubbles: true}))", nil)
	}
	key("Home")
	if got := chrome.label("#chart-loss .flag"); got != "epoch 0.52, update 12" {
		t.Errorf("the first point is %q", got)
	}
	var said string
	chrome.eval("document.querySelector('#chart-loss .plot').getAttribute('aria-valuetext')", &said)
	if !strings.HasPrefix(said, "update 12: train ") || !strings.Contains(said, ", validation ") {
		t.Errorf("the cursor says %q", said)
	}
	var cursors int
	if chrome.eval("document.querySelectorAll('.cursor').length", &cursors); cursors != 4 {
		t.Errorf("%d of 4 charts show the cursor", cursors)
	}
	chrome.screenshot("cursor")
	key("Escape")
	if chrome.eval("document.querySelectorAll('.cursor').length", &cursors); cursors != 0 {
		t.Errorf("%d cursors after Escape", cursors)
	}
}

// axes switches the loss to a logarithmic axis and the range to the whole run.
func axes(t *testing.T, chrome *browser) {
	ticks := func() (s string) {
		chrome.eval("[...document.querySelectorAll('#chart-loss .tick')].map(e => e.textContent).join(' ')", &s)
		return s
	}
	linear := ticks()
	chrome.eval("document.querySelector('[value=log]').click()", nil)
	chrome.eval("document.querySelector('[value=whole]').click()", nil)
	chrome.wait("[...document.querySelectorAll('#chart-loss .tick')].some(e => e.textContent == '35')")
	if log := ticks(); linear != "0.5 1 1.5 2 2.5 0 5 10 15 20" || log != "0.7 1 1.5 2 0 5 10 15 20 25 30 35 40" {
		t.Errorf("ticks %q, then %q", linear, log)
	}
	chrome.screenshot("log")
	chrome.eval("document.querySelector('[value=linear]').click()", nil)
	chrome.eval("document.querySelector('[value=far]').click()", nil)
}

// looksRight decodes a screenshot and demands more than a blank one.
func looksRight(t *testing.T, picture []byte) image.Image {
	t.Helper()
	p, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	colours := map[color.Color]bool{}
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y += 2 {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x += 2 {
			colours[p.At(x, y)] = true
		}
	}
	if len(colours) < 100 {
		t.Errorf("the screenshot has %d colours", len(colours))
	}
	return p
}

// quiet demands an empty console, and requests to the board alone.
func quiet(t *testing.T, chrome *browser, board string) {
	for _, m := range chrome.logged("browser") {
		t.Errorf("console: %s", m)
	}
	asked := 0
	for _, m := range chrome.logged("performance") {
		var event struct {
			Message struct {
				Method string
				Params struct {
					DocumentURL string
					Request     struct{ URL string }
				}
			}
		}
		if err := json.Unmarshal([]byte(m), &event); err != nil {
			t.Fatal(err)
		}
		if event.Message.Method != "Network.requestWillBeSent" || event.Message.Params.DocumentURL != board {
			continue // or it belongs to the page the browser starts with
		}
		u, err := url.Parse(event.Message.Params.Request.URL)
		if err != nil {
			t.Fatal(err)
		}
		if u.Scheme != "data" && !strings.HasPrefix(u.String(), board) {
			t.Errorf("the page asks for %s", u)
		}
		asked++
	}
	if asked < 3 {
		t.Errorf("only %d requests seen", asked)
	}
}

func fixedPoint(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }

// survivesServer breaks the connection, and has another run's board come up at
// the same address.
func survivesServer(t *testing.T, chrome *browser) {
	b := start(t)
	train(b, 0, 46)
	chrome.open(b.URL())
	chrome.wait("document.body.dataset.records == 6")
	if err := b.server.Close(); err != nil {
		t.Fatal(err)
	}
	chrome.wait("document.getElementById('status').dataset.state == 'lost'")
	if got := chrome.text("#val-acc"); !strings.HasSuffix(got, " %") {
		t.Errorf("without a server the page shows an accuracy of %q", got)
	}
	other := aRun()
	other.Model, other.Epochs, other.Updates = "another", 1, 5000
	again, err := Start(strings.Trim(strings.TrimPrefix(b.URL(), "http:"), "/"), other)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	publish(again, 1000, 2000)
	chrome.wait("document.getElementById('model').textContent == 'another' && document.body.dataset.records == 2")
	if got := chrome.label("#chart-loss .unit"); got != "update" {
		t.Errorf("a run within one epoch has an axis of %s", got)
	}
	chrome.logged("browser") // it complains of the lost connection, as it should
}

// scripts tries the page's arithmetic.
func scripts(t *testing.T, chrome *browser) {
	for expression, want := range map[string]string{
		"multiples(0, 0.3, 0.1)":                       "0,0.1,0.2,0.3",
		"niceStep(1, 5)":                               "0.2",
		"niceStep(920, 8)":                             "200",
		"linearAxis([3], {}).ticks":                    "2.6,2.8,3,3.2,3.4",
		"linearAxis([0], {zero: true}).ticks":          "0,0.2,0.4,0.6,0.8,1",
		"linearAxis([91, 99.9], {most: 100}).ticks":    "90,92,94,96,98,100",
		"logAxis([1e-4, 10]).ticks":                    "0.0001,0.001,0.01,0.1,1,10",
		"logAxis([0.09, 2.5]).ticks":                   "0.1,0.2,0.5,1,2",
		"logAxis([2, 2]).ticks.length > 0":             "true",
		"duration(3661)":                               "1:01:01",
		"duration(59.6)":                               "1:00",
		"[rate(1e-5), rate(0.0017754), rate(0)]":       "1e-5,0.001775,0",
		"[loss(0.51237), loss(12345.6), loss(null)]":   "0.5124,1.235e+4,–",
		"[speed(12.345), speed(5549.4), short(10.48)]": "12.3,5,549,10.48",
	} {
		var got string
		if chrome.eval("String("+expression+")", &got); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
}
