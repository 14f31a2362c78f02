package data

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of a folder of pictures.
const (
	maxFiles   = 1 << 23
	maxClasses = 1 << 16
	maxDepth   = 16 // folders in folders
)

var pictureEndings = []string{".jpg", ".jpeg", ".png"}

// IsPictureName reports whether a file is a picture by the ending of its name:
// one that image_folder reads.
func IsPictureName(name string) bool { return slices.Contains(pictureEndings, ending(name)) }

// otherEndings are of pictures that are not read; their user should know.
var otherEndings = []string{".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".tif", ".tiff", ".webp"}

// scanner finds the pictures of a folder and what is wrong with them.
type scanner struct {
	config *Config
	files  int
	others map[string]int // files of other kinds, by ending
	broken int
	gray16 int
}

// parts finds out where the two parts are; valDir is empty if they are one.
func (s *scanner) parts() (trainDir, valDir string, err error) {
	dir := s.config.Dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", fmt.Errorf("data set %s: %w; name its directory with --data-dir", s.config.Name, err)
	}
	train := filepath.Join(dir, trainFolder)
	if !isDir(train) {
		return dir, "", nil
	}
	for _, name := range valFolders {
		if val := filepath.Join(dir, name); isDir(val) {
			return train, val, nil
		}
	}
	// A lone train has the classes in it; among others it is a class, as of
	// vehicles.
	for _, e := range entries {
		if e.Name() != trainFolder && !hidden(e.Name()) && isDir(filepath.Join(dir, e.Name())) {
			return dir, "", nil
		}
	}
	return train, "", nil
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// classes finds the folders of a part, and their files.
func (s *scanner) classes(dir string) (c classFiles, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return c, err
	}
	loose := 0
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case hidden(e.Name()):
			continue
		case !isDir(path):
			if IsPictureName(e.Name()) {
				loose++
			}
			continue
		case len(c.names) == maxClasses:
			return c, fmt.Errorf("%s has more than %d folders", dir, maxClasses)
		}
		info, err := os.Stat(path)
		if err != nil {
			return c, err
		}
		var files []pictureFile
		if err := s.walk(dir, e.Name(), []os.FileInfo{info}, &files); err != nil {
			return c, err
		}
		if len(files) == 0 {
			return c, fmt.Errorf("%s has no pictures (%s), and would be a class%s", path, strings.Join(pictureEndings, ", "), s.othersText())
		}
		c.names, c.files = append(c.names, e.Name()), append(c.files, files)
	}
	switch {
	case len(c.names) == 0 && loose > 0:
		return c, fmt.Errorf("%s has pictures but no folders: put those of each class into a folder with its name", dir)
	case len(c.names) == 0:
		return c, fmt.Errorf("%s has no folders of pictures: image_folder needs one for each class; --data-dir names the directory they are in", dir)
	case loose > 0:
		s.warn(fmt.Sprintf("%s: %d pictures are in no class's folder; left out", dir, loose))
	}
	return c, nil
}

// walk adds the files of a folder, name below dir, in the order of their names.
// above are the folders it is in, against links that lead back.
func (s *scanner) walk(dir, name string, above []os.FileInfo, files *[]pictureFile) error {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if hidden(e.Name()) {
			continue
		}
		below := filepath.Join(name, e.Name())
		path := filepath.Join(dir, below)
		info, err := e.Info()
		if err == nil && e.Type()&fs.ModeSymlink != 0 {
			info, err = os.Stat(path)
		}
		known := IsPictureName(e.Name())
		switch {
		case err != nil && known: // a link to nothing: found broken later
			*files = append(*files, pictureFile{below, 0})
		case err != nil:
		case info.IsDir():
			if slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, info) }) {
				return fmt.Errorf("%s is a link to a folder that it is in", path)
			}
			if len(above) == maxDepth {
				return fmt.Errorf("%s: more than %d folders in each other", path, maxDepth)
			}
			if err := s.walk(dir, below, append(above, info), files); err != nil {
				return err
			}
		case known:
			*files = append(*files, pictureFile{below, info.Size()})
		default:
			s.other(e.Name())
		}
		if s.files+len(*files) > maxFiles {
			return fmt.Errorf("%s has more than %d pictures", s.config.Dir, maxFiles)
		}
	}
	if len(above) == 1 {
		s.files += len(*files)
	}
	return nil
}

func ending(name string) string { return strings.ToLower(filepath.Ext(name)) }

// other counts a picture of a kind that is not read.
func (s *scanner) other(name string) {
	if e := ending(name); slices.Contains(otherEndings, e) {
		if s.others == nil {
			s.others = map[string]int{}
		}
		s.others[e]++
	}
}

// othersText mentions files of other kinds.
func (s *scanner) othersText() string {
	if len(s.others) == 0 {
		return ""
	}
	var kinds []string
	for e, n := range s.others {
		kinds = append(kinds, fmt.Sprintf("%d %s", n, e))
	}
	sort.Strings(kinds)
	return "; there are " + strings.Join(kinds, ", ") + ", which cannot be read: convert them to JPEG or PNG"
}

// readable is the data set of the files whose headers can be read. The others
// are warned of, or an error if c.Strict.
func (s *scanner) readable(c classFiles, dir string, f fitter) (*folder, error) {
	d := &folder{fitter: f, dir: dir, classes: c.names}
	for k, files := range c.files {
		left := 0
		for i, h := range headers(dir, files) {
			path := filepath.Join(dir, files[i].name)
			if h.err != nil {
				err := h.err
				if !strings.Contains(err.Error(), path) {
					err = fmt.Errorf("%s: %w", path, err)
				}
				if s.config.Strict {
					return nil, fmt.Errorf("%w; without --strict it would be left out", err)
				}
				if s.broken++; s.broken <= maxWarnings {
					s.warn(leftOut(s.broken, err))
				}
				continue
			}
			if h.gray16 {
				s.gray16++
			}
			left++
			d.files, d.labels = append(d.files, files[i].name), append(d.labels, int32(k))
		}
		if left == 0 {
			return nil, fmt.Errorf("%s has no picture that can be read", filepath.Join(dir, c.names[k]))
		}
	}
	return d, nil
}

func (s *scanner) warn(text string) {
	if s.config.Warn != nil {
		s.config.Warn(text)
	}
}

// remarks warns of what is most likely not meant.
func (s *scanner) remarks() {
	if t := s.othersText(); t != "" {
		s.warn(s.config.Dir + strings.TrimPrefix(t, ";"))
	}
	if s.gray16 > 0 {
		s.warn(fmt.Sprintf("%s: %d pictures are gray with 16 bits, whose values above 255 all become white, as in Pillow: convert them to 8 bits", s.config.Dir, s.gray16))
	}
}

// header is what the start of a file says.
type header struct {
	gray16 bool
	err    error
}

// headers looks at files' headers, several at a time.
func headers(dir string, files []pictureFile) []header {
	found := make([]header, len(files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(files), 2*goruntime.GOMAXPROCS(0)) { // they wait for the disk
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(files); i = int(next.Add(1)) - 1 {
				found[i] = readHeader(filepath.Join(dir, files[i].name))
			}
		})
	}
	wg.Wait()
	return found
}

func readHeader(path string) header {
	f, err := openRegular(path)
	if err != nil {
		return header{err: err}
	}
	defer f.Close()
	p, err := parseHeader(bufio.NewReader(f))
	if err != nil {
		return header{err: err}
	}
	return header{gray16: p.gray16}
}
