// Package fetch downloads published data sets to where package data finds
// them. Nothing is trusted that has not the size and the SHA-256 in
// data.KnownFiles, whichever server sent it; an interrupted download goes on
// where it stopped.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/vitgen/vitgen/runtime/data"
)

// mirrors are the places of a data set's files, tried in turn: the file's name
// is put behind each.
var mirrors = map[string][]string{
	"mnist": {
		"https://storage.googleapis.com/cvdf-datasets/mnist/",
		"https://ossci-datasets.s3.amazonaws.com/mnist/",
	},
	"fashion_mnist": {
		"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
		"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
	},
	"cifar10": {
		"https://www.cs.toronto.edu/~kriz/",
		"https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
	},
}

// Names of the data sets that can be fetched, sorted.
func Names() []string { return slices.Sorted(maps.Keys(mirrors)) }

// Progress is told what happens. All calls come from one goroutine.
type Progress interface {
	// Begin: a file's transfer begins, or goes on with have of its size bytes.
	Begin(name string, have, size int64)
	// Add: n more bytes have arrived.
	Add(n int)
	// Note is a line about something that is over: a file that is complete, a
	// server that failed.
	Note(line string)
}

// Options of a fetch.
type Options struct {
	Dir      string   // the data directory; made if it is not there
	Mirror   string   // URL of a folder with the files, in place of the known mirrors
	Progress Progress // may be nil
}

// Fetch brings a data set's files into the data directory. Files that are there
// and good are left alone; one that is there and is not what it should be is
// moved aside, to NAME.bad, when the good one takes its place. What had arrived
// when ctx ended or the connection failed stays, as NAME.part, and the next
// Fetch goes on from there. The error names the file and the reason, one for
// each mirror.
func Fetch(ctx context.Context, set string, o Options) error {
	files, places := data.KnownFiles(set), mirrors[set]
	if files == nil || places == nil {
		return fmt.Errorf("data set %q cannot be fetched; there are %v", set, Names())
	}
	if o.Mirror != "" {
		places = []string{o.Mirror}
	}
	f := &fetcher{dir: o.Dir, mirrors: places, progress: o.Progress, client: newClient(), timing: usualTiming}
	if f.progress == nil {
		f.progress = silent{}
	}
	return f.all(ctx, files)
}

func (f *fetcher) all(ctx context.Context, files []data.KnownFile) error {
	for _, file := range files {
		if err := f.get(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

// fetcher is one run of Fetch.
type fetcher struct {
	dir      string
	mirrors  []string
	progress Progress
	client   *http.Client
	timing   timing
}

// timing is how patient the fetcher is.
type timing struct {
	attempts int           // at one mirror, in a row without a byte more
	wait     time.Duration // before the second attempt; doubled for each further one
	stall    time.Duration // without a byte is a failure
}

var usualTiming = timing{attempts: 4, wait: time.Second, stall: time.Minute}

// newClient leaves files as they are: compressed ones stay compressed.
func newClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: t}
}

// get brings one file, or what is packed in it, into the directory.
func (f *fetcher) get(ctx context.Context, file data.KnownFile) error {
	wanted := []data.KnownFile{file}
	result := f.path(file.Name)
	if file.Members != nil {
		wanted = file.Members
		result = f.path(path.Dir(wanted[0].Name))
	}
	if there, err := f.look(wanted); err != nil {
		return err
	} else if there == good {
		f.progress.Note(result + ": already there, checksum right")
		return nil
	}
	part, err := openPart(f.path(file.Name) + ".part")
	if err != nil {
		return err
	}
	defer part.close()
	if err := f.download(ctx, file, part); err != nil {
		return err
	}
	if file.Members == nil {
		if err := replace(part.Name(), result); err != nil {
			return err
		}
		f.progress.Note(fmt.Sprintf("%s: %s, checksum right", result, bytesText(file.Size)))
		return nil
	}
	if err := f.unpack(ctx, part.Name(), wanted); err != nil {
		return err
	}
	f.progress.Note(fmt.Sprintf("%s: %d files out of %s, checksum right", result, len(wanted), path.Base(file.Name)))
	return os.Remove(part.Name())
}

func (f *fetcher) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// What is known of files on the disk.
type state int

const (
	absent state = iota // at least one is
	bad                 // all are there, at least one is not what it should be
	good
)

func (f *fetcher) look(files []data.KnownFile) (state, error) {
	result := good
	for _, k := range files {
		name := f.path(k.Name)
		info, err := os.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return absent, nil
		case err != nil:
			return 0, err
		case !info.Mode().IsRegular():
			return 0, fmt.Errorf("%s is no file; a file belongs there", name)
		case info.Size() != k.Size:
			result = bad
			continue
		}
		sum, err := hashFile(name)
		if err != nil {
			return 0, err
		}
		if sum != k.SHA256 {
			result = bad
		}
	}
	return result, nil
}

func hashFile(name string) (string, error) {
	in, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// replace puts a complete file in its place. What is there, and was found not
// to be what it should, is moved aside: fetch deletes nothing that it did not
// download.
func replace(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		aside := to + ".bad"
		for n := 2; ; n++ {
			if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
				break
			}
			aside = fmt.Sprintf("%s.bad%d", to, n)
		}
		if err := os.Rename(to, aside); err != nil {
			return err
		}
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// syncDir makes a rename last through a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// silent is the Progress of nobody.
type silent struct{}

func (silent) Begin(string, int64, int64) {}
func (silent) Add(int)                    {}
func (silent) Note(string)                {}

// bytesText writes a size: "9.9 MB", "28.9 kB".
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
