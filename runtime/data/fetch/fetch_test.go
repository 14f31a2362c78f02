package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime/data"
	"github.com/vitgen/vitgen/runtime/rng"
)

// noise is content that no two files share.
func noise(name string, n int) []byte {
	b, r := make([]byte, n), rng.New(1, name)
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return b
}

func knownFile(name string, content []byte) data.KnownFile {
	sum := sha256.Sum256(content)
	return data.KnownFile{Name: name, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// server answers with one reply after the other; the last one stays.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	replies []http.HandlerFunc
	ranges  []string // the Range of every request
}

func serve(t *testing.T, replies ...http.HandlerFunc) *server {
	s := &server{replies: replies}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		reply := s.replies[0]
		if len(s.replies) > 1 {
			s.replies = s.replies[1:]
		}
		s.mu.Unlock()
		reply(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ranges)
}

// whole serves content, ranges of it too.
func whole(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// simple serves content and knows no ranges.
func simple(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content)
	}
}

// cut announces all of the content and breaks off before its byte n.
func cut(content []byte, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", code) }
}

// partial answers a range whatever was asked for.
func partial(contentRange string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		w.Write(body)
	}
}

// notes is a Progress that remembers.
type notes struct {
	lines  []string
	begins []string
	added  int64
}

func (n *notes) Begin(name string, have, size int64) {
	n.begins = append(n.begins, fmt.Sprintf("%s %d/%d", name, have, size))
}
func (n *notes) Add(k int)        { n.added += int64(k) }
func (n *notes) Note(line string) { n.lines = append(n.lines, line) }

// newFetcher is an impatient one for tests.
func newFetcher(dir string, servers ...*server) (*fetcher, *notes) {
	n := &notes{}
	f := &fetcher{dir: dir, progress: n, client: newClient(),
		timing: timing{attempts: 3, wait: time.Millisecond, stall: 10 * time.Second}}
	for _, s := range servers {
		f.mirrors = append(f.mirrors, s.URL+"/files")
	}
	return f, n
}

// left lists what is in a folder, with sizes.
func left(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, name)
		all[filepath.ToSlash(rel)] = info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantLeft(t *testing.T, dir string, want map[string]int64) {
	t.Helper()
	if got := left(t, dir); !maps.Equal(got, want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestFresh(t *testing.T) {
	a, b := noise("a", 300_000), noise("b", 10)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/files/a.gz":
			whole(a)(w, r)
		case "/files/b.gz":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			whole(b)(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	dir := filepath.Join(t.TempDir(), "new", "data")
	f, n := newFetcher(dir, s)
	files := []data.KnownFile{knownFile("set/a.gz", a), knownFile("set/b.gz", b)}
	if err := f.all(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, dir, map[string]int64{"set/a.gz": 300_000, "set/b.gz": 10})
	if got, err := os.ReadFile(filepath.Join(dir, "set/a.gz")); err != nil || !bytes.Equal(got, a) {
		t.Errorf("a.gz has other bytes (%v)", err)
	}
	if n.added != 300_010 || !slices.Equal(n.begins, []string{"a.gz 0/300000", "b.gz 0/10"}) {
		t.Errorf("progress: %d bytes, %q", n.added, n.begins)
	}
	if len(n.lines) != 2 || !strings.Contains(n.lines[0], "300.0 kB, checksum right") || !strings.Contains(n.lines[1], "10 bytes") {
		t.Errorf("notes: %q", n.lines)
	}

	asked := len(s.asked())
	if err := f.all(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	if len(s.asked()) != asked || !strings.Contains(n.lines[2], "already there") {
		t.Errorf("files that are there are fetched again: %q", n.lines)
	}
}

func TestTransfers(t *testing.T) {
	good := noise("good", 200_000)
	other := noise("other", 200_000)
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(other); err != nil {
				return
			}
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		w.Write(good[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	encoded := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		simple(good)(w, r)
	}
	for name, c := range map[string]struct {
		part    []byte             // there from an earlier fetch
		replies []http.HandlerFunc // of the first mirror
		second  []http.HandlerFunc // of the second one; nil: there is none
		ranges  []string           // asked of the first mirror
		fails   string             // part of the error; "": it works
	}{
		"cut, goes on":                 {replies: []http.HandlerFunc{cut(good, 120_000), whole(good)}, ranges: []string{"", "bytes=120000-"}},
		"cut three times":              {replies: []http.HandlerFunc{cut(good, 70_000), partial("bytes 70000-199999/200000", good[70_000:140_000]), partial("bytes 140000-199999/*", good[140_000:140_001]), whole(good)}, ranges: []string{"", "bytes=70000-", "bytes=140000-", "bytes=140001-"}},
		"cut, server without ranges":   {replies: []http.HandlerFunc{cut(good, 120_000), simple(good)}, ranges: []string{"", "bytes=120000-"}},
		"cut at the same place always": {replies: []http.HandlerFunc{cut(good, 60_000)}, ranges: []string{"", "bytes=60000-", "bytes=60000-"}, fails: "after 60000 of 200000 bytes"},
		"a part from before":           {part: good[:5_000], replies: []http.HandlerFunc{whole(good)}, ranges: []string{"bytes=5000-"}},
		"a complete part from before":  {part: good, replies: []http.HandlerFunc{whole(good)}},
		"a part of something else":     {part: other[:5_000], replies: []http.HandlerFunc{whole(good)}, ranges: []string{"bytes=5000-", ""}},
		"a complete wrong part":        {part: other, replies: []http.HandlerFunc{whole(good)}, ranges: []string{""}},
		"a part that is too long":      {part: append(bytes.Clone(good), 1), replies: []http.HandlerFunc{whole(good)}, ranges: []string{""}},
		"range refused":                {part: good[:5_000], replies: []http.HandlerFunc{status(416), whole(good)}, ranges: []string{"bytes=5000-", ""}},
		"another range":                {part: good[:5_000], replies: []http.HandlerFunc{partial("bytes 0-199999/200000", good)}, ranges: []string{"bytes=5000-"}, fails: `answers bytes 5000- with "bytes 0-199999/200000"`},
		"no range told":                {part: good[:5_000], replies: []http.HandlerFunc{partial("", good)}, ranges: []string{"bytes=5000-"}, fails: `with ""`},
		"range of another file":        {part: good[:5_000], replies: []http.HandlerFunc{partial("bytes 5000-99999/100000", good[5_000:])}, ranges: []string{"bytes=5000-"}, fails: "the server has 100000 bytes, the file is of 200000"},
		"not found":                    {replies: []http.HandlerFunc{status(404)}, ranges: []string{""}, fails: "404 Not Found"},
		"not found, then a mirror":     {replies: []http.HandlerFunc{status(404)}, second: []http.HandlerFunc{whole(good)}, ranges: []string{""}},
		"busy, then well":              {replies: []http.HandlerFunc{status(503), status(429), whole(good)}, ranges: []string{"", "", ""}},
		"busy for good":                {replies: []http.HandlerFunc{status(503)}, ranges: []string{"", "", ""}, fails: "503 Service Unavailable"},
		"busy, then a mirror goes on":  {replies: []http.HandlerFunc{cut(good, 50_000), status(500)}, second: []http.HandlerFunc{whole(good)}, ranges: []string{"", "bytes=50000-", "bytes=50000-"}},
		"wrong checksum":               {replies: []http.HandlerFunc{whole(other)}, ranges: []string{""}, fails: "wrong checksum: SHA-256 is "},
		"wrong checksum, then good":    {replies: []http.HandlerFunc{whole(other)}, second: []http.HandlerFunc{whole(good)}, ranges: []string{""}},
		"a page in place of the file":  {replies: []http.HandlerFunc{simple([]byte("<html>"))}, ranges: []string{""}, fails: "the server has 6 bytes, the file is of 200000"},
		"endless":                      {replies: []http.HandlerFunc{endless}, ranges: []string{""}, fails: "sends more than the 200000 bytes"},
		"silence":                      {replies: []http.HandlerFunc{hang, hang, whole(good)}, ranges: []string{"", "bytes=1000-", "bytes=1000-"}},
		"left as it is":                {replies: []http.HandlerFunc{encoded}, ranges: []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := serve(t, c.replies...)
			f, n := newFetcher(dir, first)
			if name == "silence" {
				f.timing.stall = 200 * time.Millisecond
			}
			if c.second != nil {
				f.mirrors = append(f.mirrors, serve(t, c.second...).URL)
			}
			if c.part != nil {
				write(t, filepath.Join(dir, "x.gz.part"), c.part)
			}
			err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", good)})
			if got := first.asked(); !slices.Equal(got, c.ranges) {
				t.Errorf("asked for %q, want %q", got, c.ranges)
			}
			if c.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				wantLeft(t, dir, map[string]int64{"x.gz": 200_000})
				if c.second != nil && !strings.Contains(n.lines[0], "trying the next mirror") {
					t.Errorf("notes: %q", n.lines)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fails) || !strings.Contains(err.Error(), "x.gz") {
				t.Errorf("the error is %v, want one with %q", err, c.fails)
			}
			for name, size := range left(t, dir) {
				if name != "x.gz.part" || size == 0 {
					t.Errorf("%s of %d bytes is left", name, size)
				}
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	s := serve(t, status(200))
	s.Close()
	f, _ := newFetcher(t.TempDir(), s)
	err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", []byte("x"))})
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "--mirror") {
		t.Errorf("the error is %v", err)
	}
	f.mirrors = []string{"://"}
	if err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", []byte("x"))}); err == nil {
		t.Error("no error for a URL that is none")
	}
}

// Without a network names are unknown, at once: nobody should wait for that.
func TestUnknownHost(t *testing.T) {
	f, _ := newFetcher(t.TempDir())
	tries := 0
	f.client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		tries++
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}}
	}
	f.mirrors = []string{"http://nowhere/a", "http://nowhere/b"}
	err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", []byte("x"))})
	if err == nil || !strings.Contains(err.Error(), "no such host") || tries != 2 {
		t.Errorf("%d tries, the error is %v", tries, err)
	}
}

func TestInterrupted(t *testing.T) {
	good := noise("good", 200_000)
	ctx, stop := context.WithCancelCause(t.Context())
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		w.Write(good[:90_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, whole(good))
	dir := t.TempDir()
	f, n := newFetcher(dir, s)
	file := []data.KnownFile{knownFile("x.gz", good)}
	f.progress = stopAfter{n, 90_000, func() { stop(errors.New("the user had enough")) }}
	err := f.all(ctx, file)
	if err == nil || !strings.Contains(err.Error(), "the user had enough after 90.0 kB of 200.0 kB; the next fetch goes on from there") {
		t.Errorf("the error is %v", err)
	}
	wantLeft(t, dir, map[string]int64{"x.gz.part": 90_000})
	f.progress = n
	if err := f.all(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if got := s.asked(); !slices.Equal(got, []string{"", "bytes=90000-"}) {
		t.Errorf("asked for %q", got)
	}
	wantLeft(t, dir, map[string]int64{"x.gz": 200_000})
}

// stopAfter calls stop once so many bytes have come.
type stopAfter struct {
	*notes
	bytes int64
	stop  func()
}

func (s stopAfter) Add(n int) {
	s.notes.Add(n)
	if s.added >= s.bytes {
		s.stop()
	}
}

// A file that is not what it should be is the user's all the same.
func TestBadFilesAreKept(t *testing.T) {
	good := noise("good", 1000)
	s := serve(t, whole(good))
	dir := t.TempDir()
	f, _ := newFetcher(dir, s)
	for range 2 {
		write(t, filepath.Join(dir, "x.gz"), []byte("mine"))
		if err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", good)}); err != nil {
			t.Fatal(err)
		}
	}
	wantLeft(t, dir, map[string]int64{"x.gz": 1000, "x.gz.bad": 4, "x.gz.bad2": 4})

	write(t, filepath.Join(dir, "x.gz"), []byte("mine"))
	f.mirrors = []string{serve(t, status(404)).URL}
	if err := f.all(t.Context(), []data.KnownFile{knownFile("x.gz", good)}); err == nil {
		t.Error("no error")
	}
	wantLeft(t, dir, map[string]int64{"x.gz": 4, "x.gz.bad": 4, "x.gz.bad2": 4})
}

func TestLocalFailures(t *testing.T) {
	good := noise("good", 1000)
	file := []data.KnownFile{knownFile("set/x.gz", good)}
	fails := func(t *testing.T, dir, want string) {
		t.Helper()
		first, second := serve(t, whole(good)), serve(t, whole(good))
		f, _ := newFetcher(dir, first, second)
		err := f.all(t.Context(), file)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
		if len(second.asked()) > 0 {
			t.Error("the second mirror was asked too")
		}
	}
	t.Run("disk full", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("only Linux has /dev/full, a disk that is full")
		}
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "set"), 0o777), os.Symlink("/dev/full", filepath.Join(dir, "set/x.gz.part"))); err != nil {
			t.Fatal(err)
		}
		fails(t, dir, "no space left on device: 1.0 kB more are needed")
	})
	t.Run("read-only", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write anywhere")
		}
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		fails(t, dir, "permission denied")
	})
	t.Run("a file for a folder", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "set"), nil)
		fails(t, dir, "not a directory")
	})
	t.Run("a folder for a file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "set/x.gz"), 0o777); err != nil {
			t.Fatal(err)
		}
		fails(t, dir, "a file belongs there")
	})
	t.Run("two at once", func(t *testing.T) {
		dir := t.TempDir()
		other, err := openPart(filepath.Join(dir, "set/x.gz.part"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.close()
		fails(t, dir, "another fetch is writing it")
	})
}

// Every set that can be fetched has places to fetch from, and files that are
// described in full.
func TestTable(t *testing.T) {
	sums := map[string]bool{}
	check := func(k data.KnownFile) {
		if k.Size <= 0 || !filepath.IsLocal(k.Name) || strings.HasSuffix(k.Name, "ubyte.gz") != (k.Content != "") {
			t.Errorf("%+v", k)
		}
		for _, sum := range []string{k.SHA256, k.Content} {
			if raw, err := hex.DecodeString(sum); err != nil || sum != "" && len(raw) != sha256.Size || sums[sum] {
				t.Errorf("%+v", k)
			}
			sums[sum] = sum != ""
		}
	}
	for _, name := range Names() {
		files := data.KnownFiles(name)
		if len(files) == 0 || len(mirrors[name]) < 2 {
			t.Errorf("%s: %d files, %d mirrors", name, len(files), len(mirrors[name]))
		}
		for _, k := range files {
			check(k)
			for _, m := range k.Members {
				check(m)
			}
		}
	}
	if err := Fetch(t.Context(), "mnits", Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "mnist") {
		t.Errorf("the error is %v", err)
	}
}

// Fetch with the real table, and a mirror that has something else.
func TestMirrorIsNotTrusted(t *testing.T) {
	s := serve(t, simple(make([]byte, 28_881)))
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mnist/train-images-idx3-ubyte.gz.part"), make([]byte, 9_912_422))
	err := Fetch(t.Context(), "mnist", Options{Dir: dir, Mirror: s.URL + "/here"})
	if err == nil || !strings.Contains(err.Error(), "the server has 28881 bytes, the file is of 9912422") {
		t.Errorf("the error is %v", err)
	}
	wantLeft(t, dir, map[string]int64{})
}
