package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/data"
)

// pack makes a tar.gz. A header without a size takes that of its content.
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := e.header
		h.Mode = 0o644
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	header  tar.Header
	content []byte
}

func regular(name string, content []byte) entry { return entry{tar.Header{Name: name}, content} }

// An archive is fetched, unpacked and removed; files that are good stay, bad
// ones are kept aside.
func TestArchive(t *testing.T) {
	one, two := noise("one", 50_000), noise("two", 70_000)
	packed := pack(t,
		entry{header: tar.Header{Name: "set/", Typeflag: tar.TypeDir}},
		regular("set/readme.html", []byte("<html>")), regular("./set/one.bin", one), regular("set/two.bin", two))
	archive := knownFile("set.tar.gz", packed)
	archive.Members = []data.KnownFile{knownFile("set/one.bin", one), knownFile("set/two.bin", two)}
	s := serve(t, whole(packed))
	dir := t.TempDir()
	f, n := newFetcher(dir, s)
	for range 2 { // the second time all is there
		if err := f.all(t.Context(), []data.KnownFile{archive}); err != nil {
			t.Fatal(err)
		}
		wantLeft(t, dir, map[string]int64{"set/one.bin": 50_000, "set/two.bin": 70_000})
	}
	if len(s.asked()) != 1 || len(n.lines) != 2 || !strings.Contains(n.lines[0], "2 files out of set.tar.gz") {
		t.Errorf("asked %d times, notes %q", len(s.asked()), n.lines)
	}
	write(t, filepath.Join(dir, "set/two.bin"), []byte("mine"))
	if err := f.all(t.Context(), []data.KnownFile{archive}); err != nil {
		t.Fatal(err)
	}
	wantLeft(t, dir, map[string]int64{"set/one.bin": 50_000, "set/two.bin": 70_000, "set/two.bin.bad": 4})
	if got, err := os.ReadFile(filepath.Join(dir, "set/two.bin")); err != nil || !bytes.Equal(got, two) {
		t.Errorf("two.bin has other bytes (%v)", err)
	}
}

// Whatever an archive holds, nothing but the files that are wanted is written,
// and they all or none.
func TestHostileArchives(t *testing.T) {
	content := noise("one", 1000)
	wanted := []data.KnownFile{knownFile("set/one.bin", content), knownFile("set/two.bin", content)}
	one, two := regular("set/one.bin", content), regular("set/two.bin", content)
	good := pack(t, one, two)
	for name, c := range map[string]struct {
		archive []byte
		fails   string
	}{
		"above":         {pack(t, one, regular("../evil", content), regular("set/../../evil", content), two), ""},
		"absolute":      {pack(t, one, regular("/tmp/evil-of-vitgen", content), two), ""},
		"links":         {pack(t, one, entry{header: tar.Header{Name: "set/link", Typeflag: tar.TypeSymlink, Linkname: "/"}}, regular("set/link/evil", content), two), ""},
		"link for file": {pack(t, one, entry{header: tar.Header{Name: "set/two.bin", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}), "set/two.bin is no file in it"},
		"hard link":     {pack(t, one, entry{header: tar.Header{Name: "set/two.bin", Typeflag: tar.TypeLink, Linkname: "set/one.bin"}}), "set/two.bin is no file in it"},
		"device":        {pack(t, one, entry{header: tar.Header{Name: "set/two.bin", Typeflag: tar.TypeChar}}), "set/two.bin is no file in it"},
		"too long":      {pack(t, one, regular("set/two.bin", append(content, 0))), "set/two.bin has 1001 bytes in it, not 1000"},
		"too short":     {pack(t, one, regular("set/two.bin", content[1:])), "set/two.bin has 999 bytes in it, not 1000"},
		"twice":         {pack(t, one, one, two), "set/one.bin is in it twice"},
		"missing":       {pack(t, one), "set/two.bin is not in it"},
		"empty":         {pack(t), "set/one.bin is not in it"},
		"bomb":          {pack(t, regular("zeros", make([]byte, overhead+4000)), one, two), "far more than the files that are wanted"},
		"cut":           {good[:len(good)/2], "unexpected EOF"},
		"no gzip":       {content, "gzip: invalid header"},
		"no tar":        {gzipped(t, content), "invalid tar header"},
		"nothing":       {nil, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "data", "deep")
			f, _ := newFetcher(dir)
			write(t, filepath.Join(dir, "x.tar.gz"), c.archive)
			err := f.unpack(t.Context(), filepath.Join(dir, "x.tar.gz"), wanted)
			want := map[string]int64{"data/deep/x.tar.gz": int64(len(c.archive))}
			if c.fails == "" {
				want["data/deep/set/one.bin"], want["data/deep/set/two.bin"] = 1000, 1000
			}
			switch {
			case c.fails == "" && err != nil:
				t.Error(err)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails) || !strings.Contains(err.Error(), "x.tar.gz")):
				t.Errorf("the error is %v, want one with %q", err, c.fails)
			}
			wantLeft(t, outer, want)
			if _, err := os.Lstat("/tmp/evil-of-vitgen"); err == nil {
				t.Error("a file was written outside")
			}
		})
	}
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzTake: no archive makes take panic or write anything but the file that is
// wanted.
func FuzzTake(f *testing.F) {
	content := noise("one", 100)
	f.Add(pack(f, regular("set/one.bin", content)))
	f.Add(pack(f, regular("../one.bin", content), regular("set/one.bin", content)))
	f.Add(pack(f, entry{header: tar.Header{Name: "set/one.bin", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}))
	f.Add([]byte{0x1f, 0x8b})
	outer := f.TempDir()
	dir := filepath.Join(outer, "data")
	f.Fuzz(func(t *testing.T, archive []byte) {
		fetcher, _ := newFetcher(dir)
		var taken []string
		err := fetcher.take(t.Context(), bytes.NewReader(archive), []data.KnownFile{knownFile("set/one.bin", content)}, &taken)
		for name, size := range left(t, outer) {
			if name != "data/set/one.bin.part" || err == nil && size != 100 {
				t.Errorf("%s of %d bytes (%v)", name, size, err)
			}
		}
		os.Remove(filepath.Join(dir, "set/one.bin.part"))
	})
}
