package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLoad: many clients at once; every request is answered, each with its own
// picture's answer, and pictures were classified together.
func TestLoad(t *testing.T) {
	const clients, each = 32, 25
	m, digits := open(t, 50)
	s := newServer(model{m.Session, preparer(t, m)}, defaultLimits, slog.New(slog.DiscardHandler))
	defer s.close()
	h := httptest.NewServer(s)
	defer h.Close()
	h.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = clients
	h.Client().Timeout = time.Minute

	start := time.Now()
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			for i := range each {
				d, top := &digits[(c*each+7*i)%len(digits)], 1+(c+i)%10
				status, _, body, err := ask(h.Client(), fmt.Sprintf("%s/predict?top=%d", h.URL, top), "image/png", bytes.NewReader(d.file))
				if err == nil {
					err = d.check(status, body, top)
				}
				if err != nil {
					t.Errorf("client %d, request %d: %v", c, i, err)
				}
			}
		})
	}
	group.Wait()
	c := counted(t, h.URL)
	t.Logf("%d requests in %v, %.1f pictures a batch", clients*each, time.Since(start), c["images"]/c["batches"])
	if c["requests"] != clients*each || c["answered"] != clients*each || c["images"] != clients*each || c["pending"] != 0 {
		t.Errorf("counts are %v", c)
	}
	if c["images"] < 2*c["batches"] {
		t.Errorf("%v pictures in %v batches", c["images"], c["batches"])
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestShutdown stops the whole program in the midst of many requests: each that
// was accepted is answered, correctly, and the end is clean.
func TestShutdown(t *testing.T) {
	m, digits := open(t, 30)
	weights := filepath.Join(t.TempDir(), "w.safetensors")
	if err := m.Save(weights); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var log lines
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--addr", "127.0.0.1:0", "--weights", weights, "--device", "cpu"}, &log)
	}()
	url := ""
	for deadline := time.Now().Add(20 * time.Second); url == ""; time.Sleep(5 * time.Millisecond) {
		if found := regexp.MustCompile(`"addr":"([^"]+)"`).FindStringSubmatch(log.String()); found != nil {
			url = "http://" + found[1]
		}
		select {
		case err := <-ended:
			t.Fatalf("run: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not listen")
		}
	}

	const clients = 16
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 30 * time.Second}
	var answered atomic.Int64
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			for i := c; ; i++ {
				d := &digits[i%len(digits)]
				status, _, body, err := ask(client, url+"/predict?top=3", "image/png", bytes.NewReader(d.file))
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("before the end: %v", err)
					}
					return // not accepted any more
				}
				if err := d.check(status, body, 3); err != nil {
					t.Error(err)
					return
				}
				if answered.Add(1) == 100 {
					stop()
				}
			}
		})
	}
	group.Wait()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	// The last line says how many the server answered.
	var last struct {
		Msg      string
		Answered int64
	}
	all := strings.Split(strings.TrimSpace(log.String()), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil || last.Msg != "stopped" {
		t.Fatalf("the log ends with %s", all[len(all)-1])
	}
	if got := answered.Load(); got < 100 || last.Answered != got {
		t.Errorf("the server answered %d, its clients have %d answers", last.Answered, got)
	}
}
