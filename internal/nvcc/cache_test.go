package nvcc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func cacheKey(i int) string { return fmt.Sprintf("%064x", i*0x1234567) }

func TestCacheKeeps(t *testing.T) {
	c := &Cache{dir: filepath.Join(t.TempDir(), "not", "there"), limit: cacheLimit}
	want := result{Output: []byte("\x00text"), Log: "warning"}
	if _, ok := c.get(cacheKey(1)); ok {
		t.Error("found in an empty cache")
	}
	c.put(cacheKey(1), want)
	if got, ok := c.get(cacheKey(1)); !ok || !bytes.Equal(got.Output, want.Output) || got.Log != want.Log {
		t.Errorf("got %+v, %v", got, ok)
	}
	// A damaged entry is as good as none.
	data, err := os.ReadFile(c.file(cacheKey(1)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if i >= 3 && i < 10 {
			continue // gzip's header: time, flags that say nothing of the content
		}
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		if err := os.WriteFile(c.file(cacheKey(1)), bad, 0o666); err != nil {
			t.Fatal(err)
		}
		if got, ok := c.get(cacheKey(1)); ok && (!bytes.Equal(got.Output, want.Output) || got.Log != want.Log) {
			t.Errorf("byte %d damaged: got %+v", i, got)
		}
	}
	if err := os.WriteFile(c.file(cacheKey(1)), data[:len(data)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.get(cacheKey(1)); ok {
		t.Error("half an entry was taken")
	}
}

// The oldest go when it gets too large; what is not the cache's stays.
func TestCacheTrims(t *testing.T) {
	dir := t.TempDir()
	c := &Cache{dir: dir, limit: 10 << 10}
	foreign := filepath.Join(dir, "00", "notes.txt")
	if err := os.MkdirAll(filepath.Dir(foreign), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(foreign, make([]byte, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{})
	for i := range 12 {
		r := result{Output: make([]byte, 1<<10)}
		noise.Read(r.Output) // does not compress
		c.put(cacheKey(i), r)
		old := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(c.file(cacheKey(i)), old, old); err != nil && i < 9 {
			t.Fatal(err)
		}
		c.get(cacheKey(0)) // in use
	}
	for i, want := range []bool{0: true, 1: false, 2: false, 10: true, 11: true} {
		if i > 2 && i < 10 {
			continue
		}
		if _, ok := c.get(cacheKey(i)); ok != want {
			t.Errorf("entry %d kept: %v", i, ok)
		}
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

func TestCacheShared(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			c := &Cache{dir: dir, limit: 40 << 10}
			for i := range 60 {
				key := (i + w) % 10
				want := strings.Repeat(fmt.Sprint(key), 1000)
				if r, ok := c.get(cacheKey(key)); ok && r.Log != want {
					t.Errorf("entry %d holds %q", key, r.Log)
				}
				c.put(cacheKey(key), result{Log: want})
			}
		})
	}
	wg.Wait()
}

func TestCacheAbsent(t *testing.T) {
	t.Setenv("VITGEN_CACHE", "off")
	c := OpenCache()
	if c != nil {
		t.Error("off, and yet there is one")
	}
	c.put(cacheKey(1), result{})
	if _, ok := c.get(cacheKey(1)); ok {
		t.Error("found without a cache")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VITGEN_CACHE", file) // cannot be a folder
	c = OpenCache()
	c.put(cacheKey(1), result{})
	if _, ok := c.get(cacheKey(1)); ok {
		t.Error("found in a file")
	}
}

// Everything a result depends on is in its key.
func TestCacheKey(t *testing.T) {
	keys := map[string]string{}
	add := func(what string, c Compiler, j job) {
		key := c.key(&j)
		if other := keys[key]; other != "" {
			t.Errorf("%s and %s have the same key", what, other)
		}
		keys[key] = what
	}
	c := Compiler{Kind: NVCC, Path: "/a", Version: "13.0.88"}
	j := job{kind: "ptx", arch: "sm_80", source: []byte("s"), headers: map[string][]byte{"a.h": []byte("1")}}
	add("one", c, j)
	moved := c
	moved.Path = "/b"
	if moved.key(&j) != c.key(&j) {
		t.Error("the key depends on where nvcc is")
	}
	c.Version = "13.0.89"
	add("version", c, j)
	c.Kind = NVRTC
	add("kind", c, j)
	c.id = "x"
	add("build", c, j)
	j.arch = "sm_90"
	add("arch", c, j)
	j.headers = map[string][]byte{"a.h": []byte("2")}
	add("header", c, j)
	j.headers = map[string][]byte{"b.h": []byte("2")}
	add("header's name", c, j)
	j.source = []byte("sb")
	add("source", c, j)
	j.kind = "cubin"
	add("output", c, j)
	j.ptx = []byte("p")
	add("ptx", c, j)
	t.Setenv("NVCC_APPEND_FLAGS", "-lineinfo")
	add("flags", c, j)
}
