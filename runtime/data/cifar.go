package data

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CIFAR-10 in its binary version (https://www.cs.toronto.edu/~kriz/cifar.html):
// files of records, each a byte of label and the planes red, green and blue.
const (
	cifarSide   = 32
	cifarPixels = 3 * cifarSide * cifarSide
	cifarFolder = "cifar-10-batches-bin" // in the archive
	cifarNames  = "batches.meta.txt"
	cifarTest   = "test_batch.bin"

	// cifarLimit bounds the records of one file; the real ones have 10,000.
	cifarLimit = 1 << 20
)

var cifarTrain = []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"}

var cifarClasses = []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}

// openCIFAR reads cifar10 from its six files, in the data directory, in a folder
// of the data set's name in it, or in the archive's folder in either.
func openCIFAR(c Config) (Split, error) {
	if c.Dir == "" {
		return Split{}, fmt.Errorf("data set %s is not embedded: name its directory with --data-dir (%s)", c.Name, cifarFiles())
	}
	dir, missing := "", cifarTrain
	for _, place := range []string{c.Dir, filepath.Join(c.Dir, cifarFolder), filepath.Join(c.Dir, c.Name), filepath.Join(c.Dir, c.Name, cifarFolder)} {
		if m := cifarMissing(place); len(m) <= len(cifarTrain) && (dir == "" || len(m) < len(missing)) {
			dir, missing = place, m
		}
	}
	switch {
	case dir == "":
		return Split{}, fmt.Errorf("data set %s is not in %s: put there %s; %s", c.Name, c.Dir, cifarFiles(), c.fetchHint())
	case len(missing) > 0:
		return Split{}, fmt.Errorf("data set %s in %s is incomplete: %s missing; it needs %s; %s", c.Name, dir, strings.Join(missing, ", "), cifarFiles(), c.fetchHint())
	}
	classes, err := cifarClassNames(filepath.Join(dir, cifarNames))
	if err != nil {
		return Split{}, err
	}
	train, val := newCIFAR(classes), newCIFAR(classes)
	for _, name := range cifarTrain {
		if err := c.readCIFAR(train, dir, name); err != nil {
			return Split{}, err
		}
	}
	if err := c.readCIFAR(val, dir, cifarTest); err != nil {
		return Split{}, err
	}
	return Split{Train: train, Val: val, Hash: hashTables(train, val)}, nil
}

// cifarMissing are the files that are not in a directory.
func cifarMissing(dir string) (missing []string) {
	for _, name := range append(cifarTrain[:len(cifarTrain):len(cifarTrain)], cifarTest) {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

func cifarFiles() string {
	return fmt.Sprintf("the files data_batch_1.bin … data_batch_5.bin and %s of the binary version, or its folder %s", cifarTest, cifarFolder)
}

// cifarClassNames reads a name a line; without the file the names are known.
func cifarClassNames(path string) ([]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cifarClasses, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(io.LimitReader(f, 1<<16))
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			names = append(names, name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(names) != len(cifarClasses) {
		return nil, fmt.Errorf("%s names %d classes, not %d; without the file they are known", path, len(names), len(cifarClasses))
	}
	return names, nil
}

func newCIFAR(classes []string) *table {
	return &table{channels: 3, height: cifarSide, width: cifarSide, classes: classes}
}

// readCIFAR adds a file's records to t. Errors name the file.
func (c *Config) readCIFAR(t *table, dir, name string) error {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	h := sha256.New()
	if c.Warn != nil {
		r = io.TeeReader(f, h)
	}
	if err := t.parseCIFAR(bufio.NewReaderSize(r, 1<<20)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if c.Warn != nil {
		c.unpublished(path, name, h.Sum(nil))
	}
	return nil
}

// parseCIFAR adds all records of r.
func (t *table) parseCIFAR(r io.Reader) error {
	var record [1 + cifarPixels]byte
	var images bytes.Buffer
	n := 0
	for ; ; n++ {
		got, err := io.ReadFull(r, record[:])
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			t.images = append(t.images, images.Bytes()...)
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("the file is empty")
		case err != nil:
			return truncated(err, fmt.Sprintf("%d of %d bytes of record %d", got, len(record), n))
		case n == cifarLimit:
			return fmt.Errorf("more than %d records", cifarLimit)
		case int(record[0]) >= len(t.classes):
			return fmt.Errorf("label %d of record %d is not in 0 … %d: this is not the binary version of CIFAR-10", record[0], n, len(t.classes)-1)
		}
		t.labels = append(t.labels, record[0])
		images.Write(record[1:])
	}
}
