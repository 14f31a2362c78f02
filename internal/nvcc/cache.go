package nvcc

import (
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// Cache keeps results by content in a folder. Entries are written atomically
// and checked as they are read, so any number of processes may share one. What
// goes wrong with it costs a compilation and nothing else.
type Cache struct {
	dir   string
	limit int64 // bytes
}

const cacheLimit = 256 << 20

// OpenCache returns the cache of this user, in the folder that VITGEN_CACHE
// names or else in the system's cache folder. VITGEN_CACHE=off, or no such
// folder, is nil, which keeps nothing.
func OpenCache() *Cache {
	dir := os.Getenv("VITGEN_CACHE")
	if dir == "off" {
		return nil
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil
		}
		dir = filepath.Join(base, "vitgen", "cuda")
	}
	return &Cache{dir: dir, limit: cacheLimit}
}

func (c *Cache) file(key string) string { return filepath.Join(c.dir, key[:2], key) }

// get reads an entry. gzip's checksum tells a damaged one.
func (c *Cache) get(key string) (r result, ok bool) {
	if c == nil {
		return r, false
	}
	data, err := os.ReadFile(c.file(key))
	if err != nil {
		return r, false
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return r, false
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(zip); err != nil {
		return r, false
	}
	if err := gob.NewDecoder(&text).Decode(&r); err != nil {
		return result{}, false
	}
	now := time.Now()
	_ = os.Chtimes(c.file(key), now, now) // the order in which trim forgets
	return r, true
}

func (c *Cache) put(key string, r result) {
	if c == nil {
		return
	}
	var data bytes.Buffer
	zip, _ := gzip.NewWriterLevel(&data, gzip.BestSpeed) // the level is valid
	if gob.NewEncoder(zip).Encode(r) != nil || zip.Close() != nil {
		return
	}
	if os.MkdirAll(filepath.Dir(c.file(key)), 0o777) != nil {
		return
	}
	if renameio.WriteFile(c.file(key), data.Bytes(), 0o644) == nil {
		c.trim()
	}
}

// entryName is the name of an entry, or of one that is being written.
var entryName = regexp.MustCompile(`^\.?[0-9a-f]{64}`)

// trim deletes the entries that were not used for longest until the rest fits,
// with some room. What writers left that died goes the same way.
func (c *Cache) trim() {
	type entry struct {
		path string
		size int64
		used time.Time
	}
	var all []entry
	var total int64
	names, _ := filepath.Glob(filepath.Join(c.dir, "[0-9a-f][0-9a-f]", "*")) // the pattern is valid
	for _, name := range names {
		info, err := os.Lstat(name) // another process may have trimmed it
		if err == nil && info.Mode().IsRegular() && entryName.MatchString(filepath.Base(name)) {
			all = append(all, entry{name, info.Size(), info.ModTime()})
			total += info.Size()
		}
	}
	if total <= c.limit {
		return
	}
	slices.SortFunc(all, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range all {
		if total <= c.limit*9/10 {
			return
		}
		if err := os.Remove(e.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			total -= e.size
		}
	}
}
