package data

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/runtime/rng"
)

// folder is a data set of picture files, which are decoded when they are read.
type folder struct {
	fitter
	dir     string
	files   []string // below dir
	labels  []int32
	classes []string
}

func (d *folder) Len() int          { return len(d.files) }
func (d *folder) Shape() [3]int     { return d.shape }
func (d *folder) Classes() []string { return d.classes }

func (d *folder) Sample(i int, dst []uint8) (int, error) { return d.sampleCrop(i, dst, nil) }

func (d *folder) sampleCrop(i int, dst []uint8, choose chooser) (int, error) {
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	path := filepath.Join(d.dir, d.files[i])
	var err error
	if m.file, err = readFile(path, m.file); err != nil {
		return 0, err
	}
	if err := d.make(m, dst, choose); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return int(d.labels[i]), nil
}

// Names of the folders of the two parts, where there are such.
const trainFolder = "train"

var valFolders = []string{"val", "valid", "validation", "test"}

// defaultValPart is the share of each class that validates.
const defaultValPart = 0.2

// openFolder reads image_folder: a folder for each class, in folders train and
// val of c.Dir (or valid, validation, test), or in c.Dir itself, of which
// c.ValPart of each class then validates. Classes are numbered in the order of
// their names. A class's folder may have folders in it. What starts with a dot
// is left out.
func openFolder(c Config) (Split, error) {
	if c.Dir == "" {
		return Split{}, fmt.Errorf("data set %s is your own: name its directory with --data-dir", c.Name)
	}
	f, err := newFitter(c)
	if err != nil {
		return Split{}, err
	}
	scan := &scanner{config: &c}
	trainDir, valDir, err := scan.parts()
	if err != nil {
		return Split{}, err
	}
	train, err := scan.classes(trainDir)
	if err != nil {
		return Split{}, err
	}
	val := classFiles{}
	if valDir == "" {
		valDir = trainDir
		if train, val, err = train.divide(c.ValPart, c.Seed); err != nil {
			return Split{}, fmt.Errorf("%s: %w", trainDir, err)
		}
	} else if val, err = scan.classes(valDir); err != nil {
		return Split{}, err
	}
	if err := sameClasses(train.names, val.names, trainDir, valDir); err != nil {
		return Split{}, err
	}
	if got := len(train.names); got != c.Classes {
		return Split{}, fmt.Errorf("%s has the folders of %d classes (%s); the model has %d: set input.classes: %d",
			trainDir, got, someNames(train.names), c.Classes, got)
	}
	hash := sha256.New()
	train.hash(hash, "train")
	val.hash(hash, "val")
	s := Split{Hash: hex.EncodeToString(hash.Sum(nil))}
	if s.Train, err = scan.readable(train, trainDir, f); err != nil {
		return Split{}, err
	}
	if s.Val, err = scan.readable(val, valDir, f); err != nil {
		return Split{}, err
	}
	scan.remarks()
	s.Skipped = scan.broken
	return s, nil
}

// classFiles are the files of classes.
type classFiles struct {
	names []string
	files [][]pictureFile // of each class, sorted
}

// pictureFile is a file before it has been looked into.
type pictureFile struct {
	name string // with its class's folder
	size int64
}

// divide keeps part of each class apart, at least one file of it and not all.
// Which ones depends on the seed and the class's name and number of files.
func (c classFiles) divide(part float64, seed uint64) (train, val classFiles, err error) {
	if part == 0 {
		part = defaultValPart
	}
	train, val = classFiles{names: c.names}, classFiles{names: c.names}
	for k, files := range c.files {
		n := len(files)
		if n < 2 {
			return train, val, fmt.Errorf("class %s has a single picture: one to train on and one to validate are needed", c.names[k])
		}
		apart := rng.New(seed, "split:"+c.names[k]).Perm(n)[:max(1, min(n-1, int(math.Round(part*float64(n)))))]
		slices.Sort(apart)
		var a, b []pictureFile
		for i, f := range files {
			if len(apart) > 0 && apart[0] == i {
				b, apart = append(b, f), apart[1:]
			} else {
				a = append(a, f)
			}
		}
		train.files, val.files = append(train.files, a), append(val.files, b)
	}
	return train, val, nil
}

// hash adds names and sizes; pictures are not read for it.
func (c classFiles) hash(w io.Writer, part string) {
	for _, files := range c.files {
		for _, f := range files {
			fmt.Fprintf(w, "%s\x00%s\x00%d\n", part, filepath.ToSlash(f.name), f.size)
		}
	}
}

// sameClasses: a model cannot be validated with classes it did not learn, and a
// class that is never validated is most likely a mistake.
func sameClasses(train, val []string, trainDir, valDir string) error {
	without := func(a, b []string) (only []string) {
		for _, n := range a {
			if !slices.Contains(b, n) {
				only = append(only, n)
			}
		}
		return only
	}
	if only := without(val, train); only != nil {
		return fmt.Errorf("%s has classes that %s has not: %s", valDir, trainDir, someNames(only))
	}
	if only := without(train, val); only != nil {
		return fmt.Errorf("%s lacks classes of %s: %s", valDir, trainDir, someNames(only))
	}
	return nil
}

// someNames lists names, the first of many.
func someNames(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// isDir reports whether there is a directory, by a link if need be.
func isDir(path string) bool {
	s, err := os.Stat(path)
	return err == nil && s.IsDir()
}
