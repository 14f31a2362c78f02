// Package data is what trainers learn from: labelled 8-bit images, embedded,
// made up, or read from IDX and CIFAR files and folders of pictures. They are
// decoded, converted and resized as Pillow does, and handed out in shuffled,
// augmented, normalized batches, which are made ahead of their use and depend
// on the seed only.
package data

import (
	"fmt"
	"sort"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/vitgen/vitgen/runtime"
)

// Dataset is a fixed list of labelled images. It may be read from several
// goroutines.
type Dataset interface {
	// Len is the number of samples.
	Len() int
	// Shape of an image: channels, height, width.
	Shape() [3]int
	// Sample writes the pixels of sample i, channel by channel and row by
	// row, and returns its label. The error names the file that cannot be read.
	Sample(i int, pixels []uint8) (label int, err error)
	// Classes are the names of the labels 0, 1, ….
	Classes() []string
}

// Split is a data set in its two parts.
type Split struct {
	Name       string
	Train, Val Dataset
	Hash       string // hex SHA-256 of the data: the same for the same samples
	Skipped    int    // pictures left out because their header cannot be read
}

// Config says which data set to open and what the model expects of it.
type Config struct {
	Name       string
	Dir        string  // where the files of data sets that are not embedded are
	Image      [3]int  // of the model
	Classes    int     // of the model
	Resize     [2]int  // height, width; 0, 0: as stored. Not for image_folder
	Fit        string  // pictures of any size: crop or stretch (Preparer)
	ValPart    float64 // image_folder of one part: share of it that validates; 0: 0.2
	Train, Val int     // synthetic: samples
	Seed       uint64  // of synthetic samples, and of what image_folder validates with
	Augment    runtime.Augment

	Strict bool              // a picture that cannot be read is an error
	Warn   func(text string) // is told of what is left out; nil: nobody is
}

var openers = map[string]func(Config) (Split, error){
	"digits":        openDigits,
	"synthetic":     openSynthetic,
	"mnist":         openMNIST,
	"cifar10":       openCIFAR,
	"image_folder":  openFolder,
	"fashion_mnist": openMNIST,
}

// Names of the data sets, sorted.
func Names() []string {
	var names []string
	for n := range openers {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Open opens a data set, resizes it, and checks that its images and classes
// are what the model was compiled for. Images are decoded and resized once and
// kept, as far as cacheLimit allows.
func Open(c Config) (Split, error) {
	open := openers[c.Name]
	if open == nil {
		return Split{}, fmt.Errorf("unknown data set %q; there are %s%s", c.Name, strings.Join(Names(), ", "), suggest(c.Name))
	}
	s, err := open(c)
	if err != nil {
		return Split{}, err
	}
	s.Name = c.Name
	folder := c.Name == "image_folder"
	if c.Resize != [2]int{} && !folder {
		s.Train, s.Val = Resized(s.Train, c.Resize), Resized(s.Val, c.Resize)
	}
	if err := s.fits(c); err != nil {
		return Split{}, err
	}
	if !folder && c.Resize == [2]int{} {
		return s, nil // as stored, in memory already
	}
	limit := cacheLimit
	if c.Augment.ResizedCrop == (runtime.ResizedCrop{}) { // else each epoch has other crops
		if t := Cached(s.Train, limit); t != s.Train {
			s.Train = t
			limit -= t.Len() * pixels(t)
		}
	}
	s.Val = Cached(s.Val, limit)
	return s, nil
}

// cacheLimit bounds the decoded and resized images kept in memory, in bytes.
const cacheLimit = 2 << 30

func (s *Split) fits(c Config) error {
	if got := s.Train.Shape(); got != c.Image {
		hint := ""
		if got[0] == c.Image[0] {
			hint = fmt.Sprintf("; set data.%s.resize: [%d, %d]", c.Name, c.Image[1], c.Image[2])
		}
		return fmt.Errorf("data set %s has images of %s, the model takes %s%s", c.Name, shapeText(got), shapeText(c.Image), hint)
	}
	if got := len(s.Train.Classes()); got > c.Classes {
		return fmt.Errorf("data set %s has %d classes, the model only %d", c.Name, got, c.Classes)
	}
	for _, d := range []Dataset{s.Train, s.Val} {
		if d.Len() == 0 {
			return fmt.Errorf("data set %s has no samples in one of its parts", c.Name)
		}
	}
	return nil
}

func shapeText(s [3]int) string { return fmt.Sprintf("%d×%d×%d", s[0], s[1], s[2]) }

// suggest is "; did you mean …?" if a name is close to a known one.
func suggest(name string) string {
	best, distance := "", len(name)/2+1
	for _, n := range Names() {
		if d := levenshtein.ComputeDistance(name, n); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// pixels of one image.
func pixels(d Dataset) int {
	s := d.Shape()
	return s[0] * s[1] * s[2]
}

// digitNames are the classes "0" … "9".
func digitNames() []string { return strings.Split("0 1 2 3 4 5 6 7 8 9", " ") }
