package trainer

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

func TestFetch(t *testing.T) {
	t.Chdir(t.TempDir())
	m := fake.New([3]int{1, 28, 28}, 10, 8, runtime.Train{})
	m.Data = runtime.Data{Name: "mnist"}
	begun := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/mnist/train-images-idx3-ubyte.gz" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", "9912422")
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
	}))
	defer s.Close()

	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-begun
		for { // what was sent has arrived
			if info, err := os.Stat("sets/mnist/train-images-idx3-ubyte.gz.part"); err == nil && info.Size() == 1000 {
				break
			}
		}
		stop()
	}()
	status, _, stderr := run(t, ctx, m, "fetch", "--data-dir", "sets", "--mirror", s.URL+"/mnist")
	if status != 1 || !strings.Contains(stderr, "after 1.0 kB of 9.9 MB; the next fetch goes on from there") {
		t.Errorf("interrupted: status %d, %s", status, stderr)
	}
	if left, err := filepath.Glob("sets/mnist/*"); err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".part") {
		t.Errorf("%v is left (%v)", left, err)
	}

	for _, c := range []struct {
		args       []string
		status     int
		out, error string
	}{
		{[]string{"fetch", "fashion_mnist", "--mirror", s.URL}, 1, "", "/train-images-idx3-ubyte.gz: 404 Not Found"},
		{[]string{"fetch", "--mirror", s.URL, "cifar10"}, 1, "", "/cifar-10-binary.tar.gz: 404 Not Found"},
		{[]string{"fetch", "digits"}, 0, "digits is not fetched from anywhere; what can be fetched is cifar10, fashion_mnist, mnist", ""},
		{[]string{"fetch", "imagenet"}, 2, "", `unknown data set "imagenet"; there are cifar10, fashion_mnist, mnist`},
		{[]string{"fetch", "mnist", "cifar10"}, 2, "", `unexpected argument "cifar10"`},
		{[]string{"fetch", "-h"}, 0, "--mirror URL", ""},
	} {
		status, stdout, stderr := run(t, t.Context(), m, c.args...)
		if status != c.status || !strings.Contains(stdout, c.out) || !strings.Contains(stderr, c.error) || (c.error == "") != (stderr == "") {
			t.Errorf("%v: status %d\n%s%s", c.args, status, stdout, stderr)
		}
	}
	m.Data.Name = ""
	if status, _, stderr := run(t, t.Context(), m, "fetch"); status != 2 || !strings.Contains(stderr, "fake.yaml names no data set") {
		t.Errorf("no data set: status %d, %s", status, stderr)
	}
}

// On a terminal there is a bar, which is gone before a line is written.
func TestFetchProgress(t *testing.T) {
	var out, bars bytes.Buffer
	p := &fetchProgress{out: &out, bars: &bars, terminal: true}
	p.Begin("x.gz", 200, 1000)
	p.Add(400)
	p.Note("x.gz is there")
	if s := bars.String(); !strings.Contains(s, "x.gz, the rest") || !strings.Contains(s, "50%") {
		t.Errorf("the bar is %q", s)
	}
	if p.bar != nil || out.String() != "x.gz is there\n" {
		t.Errorf("bar %v, lines %q", p.bar, out.String())
	}
	bars.Reset()
	p.terminal = false
	p.Begin("x.gz", 0, 1000)
	p.Add(1000)
	if bars.Len() > 0 {
		t.Errorf("a bar without a terminal: %q", bars.String())
	}
}
