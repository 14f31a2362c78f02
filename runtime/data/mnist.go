package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The four files of MNIST and its successors.
const (
	trainImages = "train-images-idx3-ubyte"
	trainLabels = "train-labels-idx1-ubyte"
	testImages  = "t10k-images-idx3-ubyte"
	testLabels  = "t10k-labels-idx1-ubyte"
)

var mnistFiles = []string{trainImages, trainLabels, testImages, testLabels}

var fashionNames = []string{"t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"}

// torchvision's names of the data sets' folders.
var torchFolders = map[string]string{"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}

// openMNIST reads mnist or fashion_mnist from its four IDX files, plain or
// gzip, in the data directory, in a folder of the data set's name in it, or
// where torchvision puts them.
func openMNIST(c Config) (Split, error) {
	if c.Dir == "" {
		return Split{}, fmt.Errorf("data set %s is not embedded: name its directory with --data-dir (%s)", c.Name, fourFiles())
	}
	places := []string{c.Dir, filepath.Join(c.Dir, c.Name), filepath.Join(c.Dir, torchFolders[c.Name], "raw")}
	var found map[string]string
	for _, dir := range places {
		if files := locate(dir); len(files) > len(found) {
			found = files
		}
	}
	var missing []string
	for _, name := range mnistFiles {
		if found[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) == len(mnistFiles) {
		return Split{}, fmt.Errorf("data set %s is not in %s: put there %s; %s", c.Name, c.Dir, fourFiles(), c.fetchHint())
	}
	if len(missing) > 0 {
		return Split{}, fmt.Errorf("data set %s in %s is incomplete: %s missing; it needs %s; %s",
			c.Name, c.Dir, strings.Join(missing, ", "), fourFiles(), c.fetchHint())
	}
	classes := digitNames()
	if c.Name == "fashion_mnist" {
		classes = fashionNames
	}
	train, err := c.readTable(found, trainImages, trainLabels, classes)
	if err != nil {
		return Split{}, err
	}
	val, err := c.readTable(found, testImages, testLabels, classes)
	if err != nil {
		return Split{}, err
	}
	if train.Shape() != val.Shape() {
		return Split{}, fmt.Errorf("%s has images of %s but %s of %s", found[trainImages], shapeText(train.Shape()),
			found[testImages], shapeText(val.Shape()))
	}
	return Split{Train: train, Val: val, Hash: hashTables(train, val)}, nil
}

// locate finds the four files in a directory; plain ones are preferred. Some
// archives spell the names with a dot before idx.
func locate(dir string) map[string]string {
	found := map[string]string{}
	for _, name := range mnistFiles {
		dotted := strings.Replace(name, "-idx", ".idx", 1)
		for _, candidate := range []string{name, name + ".gz", dotted, dotted + ".gz"} {
			path := filepath.Join(dir, candidate)
			if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrInvalid) {
				found[name] = path
				break
			}
		}
	}
	return found
}

func fourFiles() string {
	return fmt.Sprintf("the four files %s, each plain or with .gz", strings.Join(mnistFiles, ", "))
}

// readTable reads two of the files that were found.
func (c *Config) readTable(found map[string]string, imageName, labelName string, classes []string) (*table, error) {
	images, err := c.readIDX(found, imageName, idxImages)
	if err != nil {
		return nil, err
	}
	labels, err := c.readIDX(found, labelName, idxLabels)
	if err != nil {
		return nil, err
	}
	return newTable(images, labels, found[imageName], found[labelName], classes)
}

func (c *Config) readIDX(found map[string]string, name string, magic uint32) (*array, error) {
	a, err := readIDX(found[name], magic)
	if err == nil && c.Warn != nil {
		c.unpublished(found[name], name, a.sum(magic))
	}
	return a, err
}
