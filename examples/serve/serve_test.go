package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"math"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	compiled "github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// digit is a validation image as a client sends it, and what the model says of
// it when asked alone.
type digit struct {
	file []byte
	want []runtime.Prediction // all classes
}

// open makes a model of random weights, and so many digits. No two digits have
// the same answer, so that mixed ones show.
func open(t testing.TB, n int) (*compiled.Model, []digit) {
	t.Helper()
	m, err := compiled.New(runtime.Options{Device: "cpu", Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	names := strings.Fields("zero one two three four five six seven eight nine")
	if err := m.SetClasses(names); err != nil {
		t.Fatal(err)
	}
	split, err := data.Open(data.Config{Name: "digits", Image: m.Model().Image, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	prepare := preparer(t, m)
	digits := make([]digit, n)
	answers := map[float64]bool{}
	for i := range digits {
		img := image.NewGray(image.Rect(0, 0, 8, 8))
		if _, err := split.Val.Sample(i, img.Pix); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if err := png.Encode(&file, img); err != nil {
			t.Fatal(err)
		}
		input := make([]float32, 64)
		if err := prepare.Decode(bytes.NewReader(file.Bytes()), input); err != nil {
			t.Fatal(err)
		}
		top, err := m.PredictTop(input, 10)
		if err != nil {
			t.Fatal(err)
		}
		digits[i] = digit{file.Bytes(), top[0]}
		answers[math.Round(1e5*top[0][0].Probability)] = true
	}
	if len(answers) < n*9/10 {
		t.Fatalf("only %d of %d answers differ", len(answers), n)
	}
	return m, digits
}

func preparer(t testing.TB, m *compiled.Model) *data.Preparer {
	t.Helper()
	d := m.Model().Data
	p, err := data.NewPreparer(data.Config{Name: d.Name, Image: m.Model().Image}, d.Mean, d.Std)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check compares an answer with the model's own.
func (d *digit) check(status int, body []byte, top int) error {
	var got struct{ Predictions []class }
	if err := json.Unmarshal(body, &got); status != http.StatusOK || err != nil || len(got.Predictions) != top {
		return fmt.Errorf("status %d: %s", status, body)
	}
	for i, p := range got.Predictions {
		if w := d.want[i]; p.Class != w.Class || math.Abs(p.Probability-w.Probability) > 1e-6 || len(p.Name) < 3 {
			return fmt.Errorf("place %d is %+v, want %+v", i, p, w)
		}
	}
	return nil
}

// ask posts a picture and returns the answer.
func ask(client *http.Client, url, kind string, body io.Reader) (status int, header http.Header, answer []byte, err error) {
	r, err := client.Post(url, kind, body)
	if err != nil {
		return 0, nil, nil, err
	}
	defer r.Body.Close()
	answer, err = io.ReadAll(r.Body)
	return r.StatusCode, r.Header, answer, err
}

func counted(t *testing.T, url string) map[string]float64 {
	t.Helper()
	r, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var c map[string]float64
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLimits: what is wrong with a request is said with its status.
func TestLimits(t *testing.T) {
	m, digits := open(t, 10)
	l := defaultLimits
	l.body, l.pixels = 2000, 100
	s := newServer(model{m.Session, preparer(t, m)}, l, slog.New(slog.DiscardHandler))
	defer s.close()
	h := httptest.NewServer(s)
	defer h.Close()

	form := func(name string) (kind string, body []byte) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		w.WriteField("comment", "a digit")
		part, err := w.CreateFormFile(name, "d.png")
		if err != nil {
			t.Fatal(err)
		}
		part.Write(digits[0].file)
		w.Close()
		return w.FormDataContentType(), b.Bytes()
	}
	good := digits[0].file
	kind, body := form("picture")
	status, _, answer, err := ask(h.Client(), h.URL+"/predict?top=2", kind, bytes.NewReader(body))
	if err == nil {
		err = digits[0].check(status, answer, 2)
	}
	if err != nil {
		t.Errorf("a form: %v", err)
	}
	nothing, other := form("image")
	var large bytes.Buffer
	if err := png.Encode(&large, image.NewGray(image.Rect(0, 0, 20, 20))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		query, kind string
		body        []byte
		status      int
		want        string
	}{
		{"", "image/png", good[:40], 400, "the picture cannot be read: PNG: "},
		{"", "image/jpeg", []byte("hello"), 400, "neither JPEG nor PNG"},
		{"", "image/png", nil, 400, "the file is empty"},
		{"", "image/png", make([]byte, 5000), 413, "more than 2000 bytes"},
		{"", "image/png", large.Bytes(), 413, "20×20 pixels; at most 100"},
		{"", "text/plain", good, 415, "send image/png"},
		{"", "", good, 415, "send image/png"},
		{"", nothing, other, 400, "no part called picture"},
		{"", kind, body[:len(body)-80], 400, "reading the request"},
		{"", "multipart/form-data", body, 400, "reading the request"},
		{"?top=0", "image/png", good, 400, `top=\"0\"`},
		{"?top=x", "image/png", good, 400, `top=\"x\"`},
	} {
		status, header, answer, err := ask(h.Client(), h.URL+"/predict"+c.query, c.kind, bytes.NewReader(c.body))
		if err != nil || status != c.status || !strings.Contains(string(answer), c.want) || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s, %d bytes: status %d, want %d; no %q in %s %v", c.query, c.kind, len(c.body), status, c.status, c.want, answer, err)
		}
	}
	for path, status := range map[string]int{"/predict": 405, "/nowhere": 404, "/healthz": 200} {
		if r, err := h.Client().Get(h.URL + path); err != nil || r.StatusCode != status {
			t.Errorf("GET %s: %v, %v", path, r.StatusCode, err)
		} else {
			r.Body.Close()
		}
	}
	if c := counted(t, h.URL); c["refused"] != 12 || c["answered"] != 1 || c["requests"] != 13 {
		t.Errorf("counts are %v", c)
	}
}

// blocked is a server whose model answers when let is closed.
func blocked(t *testing.T, m *compiled.Model, l limits) (s *server, url string, let chan struct{}) {
	t.Helper()
	s = newServer(model{m.Session, preparer(t, m)}, l, slog.New(slog.DiscardHandler))
	let = make(chan struct{})
	s.batcher.predict = func(images []float32, k int) ([][]runtime.Prediction, error) {
		<-let
		return m.PredictTop(images, k)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.Close(); s.close() })
	return s, h.URL, let
}

// TestFull: when all that may be pending is, more is refused at once, and what
// was accepted is answered in the end.
func TestFull(t *testing.T) {
	m, digits := open(t, 10)
	l := defaultLimits
	l.pending, l.wait, l.timeout = 3, 0, time.Minute
	s, url, let := blocked(t, m, l)
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			status, _, body, err := ask(http.DefaultClient, url+"/predict", "image/png", bytes.NewReader(digits[i].file))
			if err == nil {
				err = digits[i].check(status, body, 1)
			}
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	for len(s.slots) < 3 {
		time.Sleep(time.Millisecond)
	}
	status, header, body, err := ask(http.DefaultClient, url+"/predict", "image/png", bytes.NewReader(digits[3].file))
	if err != nil || status != 503 || header.Get("Retry-After") == "" || !strings.Contains(string(body), "queue is full") {
		t.Errorf("a fourth request: status %d, %v %s %v", status, header, body, err)
	}
	close(let)
	group.Wait()
	if c := counted(t, url); c["busy"] != 1 || c["answered"] != 3 || c["accepted"] != 3 {
		t.Errorf("counts are %v", c)
	}
}

// TestTimeout: a request is told when its time is up, and its slot is free.
func TestTimeout(t *testing.T) {
	m, digits := open(t, 10)
	l := defaultLimits
	l.timeout = 50 * time.Millisecond
	s, url, let := blocked(t, m, l)
	status, header, body, err := ask(http.DefaultClient, url+"/predict", "image/png", bytes.NewReader(digits[3].file))
	if err != nil || status != 503 || header.Get("Retry-After") == "" || !strings.Contains(string(body), "within 50ms") {
		t.Errorf("too late: status %d, %v %s %v", status, header, body, err)
	}
	close(let)
	if c := counted(t, url); c["timeouts"] != 1 || c["accepted"] != 1 || len(s.slots) != 0 {
		t.Errorf("counts are %v", c)
	}
}

// TestSlowClient: who does not send what was announced loses its slot.
func TestSlowClient(t *testing.T) {
	m, _ := open(t, 10)
	l := defaultLimits
	l.timeout = 100 * time.Millisecond
	s := newServer(model{m.Session, preparer(t, m)}, l, slog.New(slog.DiscardHandler))
	defer s.close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, httpServer(s), listener, s, 10*time.Second) }()

	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n\x89PNG"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || len(s.slots) != 0 {
		t.Errorf("%v, %d slots taken\n%s", err, len(s.slots), answer)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"usage":                    {},
		"no such file":             {"--weights", "nowhere.safetensors"},
		"limits must be positive":  {"--weights", "x", "--timeout", "0s"},
		"flag provided but not de": {"--wieghts", "x"},
	} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: no %q in %v", args, want, err)
		}
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

// FuzzPredict: whatever a client sends, the answer is JSON, and never that the
// server failed.
func FuzzPredict(f *testing.F) {
	m, digits := open(f, 10)
	l := defaultLimits
	l.pixels, l.wait = 1<<16, 0
	s := newServer(model{m.Session, preparer(f, m)}, l, slog.New(slog.DiscardHandler))
	f.Cleanup(s.close)
	f.Add("image/png", "top=3", digits[0].file)
	f.Add("image/jpeg", "top=0", digits[0].file[:50])
	f.Add("multipart/form-data; boundary=x", "", []byte("--x\r\nContent-Disposition: form-data; name=\"picture\"\r\n\r\nP\r\n--x--"))
	f.Add("multipart/form-data", "", []byte("--"))
	f.Add("", "top=1&top=2", []byte{})
	f.Fuzz(func(t *testing.T, kind, query string, body []byte) {
		r := httptest.NewRequest("POST", "/predict", bytes.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
