package data

import (
	"bytes"
	_ "embed"
)

//go:embed digits/images-idx3-ubyte.gz
var digitImages []byte

//go:embed digits/labels-idx1-ubyte.gz
var digitLabels []byte

// openDigits is the embedded data set: 1,797 handwritten digits of 8×8 pixels
// (digits/NOTICE.md). Of each class every fifth sample, in the order they are
// stored, is for validation: the split is fixed and stratified, 1,442 to 355
// samples. The stored values 0 … 16 become round(255·v/16), halves up.
func openDigits(Config) (Split, error) {
	images, err := parseIDX(bytes.NewReader(digitImages), idxImages)
	if err != nil {
		panic("BUG: embedded digits: " + err.Error())
	}
	labels, err := parseIDX(bytes.NewReader(digitLabels), idxLabels)
	if err != nil {
		panic("BUG: embedded digits: " + err.Error())
	}
	for i, v := range images.values {
		images.values[i] = uint8((255*int(v) + 8) / 16)
	}
	all, err := newTable(images, labels, "images", "labels", digitNames())
	if err != nil {
		panic("BUG: embedded digits: " + err.Error())
	}
	var seen [10]int
	var train, val []int
	for i, l := range all.labels {
		if seen[l]++; seen[l]%5 == 0 {
			val = append(val, i)
		} else {
			train = append(train, i)
		}
	}
	return Split{Train: &subset{all, train}, Val: &subset{all, val}, Hash: hashTables(all)}, nil
}

// subset is some samples of a data set.
type subset struct {
	Dataset
	index []int
}

func (s *subset) Len() int { return len(s.index) }

func (s *subset) Sample(i int, pixels []uint8) (int, error) {
	return s.Dataset.Sample(s.index[i], pixels)
}
