package runtime

import (
	"errors"
	"fmt"
)

// feed puts checked samples, at most the compiled batch, where programs read
// them. Labels beyond them are -1.
func (s *Session) feed(b *Samples) error {
	if s.mix != nil {
		if err := s.feedMix(b); err != nil {
			return err
		}
	}
	if b.Index != nil {
		return s.dev.(Resident).Gather(b.Index)
	}
	n := len(b.Labels)
	if err := s.dev.Write(Image.At(0), asBytes(b.Images[:n*s.model.ImageElems()])); err != nil {
		return err
	}
	return s.feedLabels(Label, b.Labels)
}

// feedLabels writes a region of labels; those beyond the ones given are -1.
func (s *Session) feedLabels(r Region, labels []int32) error {
	n := copy(s.labels, labels)
	for i := n; i < len(s.labels); i++ {
		s.labels[i] = -1
	}
	return s.dev.Write(r.At(0), asBytes(s.labels))
}

// feedMix says how two labels share a sample. A sample of one label is all its
// own: with weight 1 the other label is not looked at.
func (s *Session) feedMix(b *Samples) error {
	n := copy(s.mix, b.Mix)
	for i := n; i < len(s.mix); i++ {
		s.mix[i] = 1
	}
	other := b.Labels2
	if other == nil {
		other = b.Labels
	}
	if err := s.feedLabels(Label2, other); err != nil {
		return err
	}
	return s.dev.Write(Mix.At(0), asBytes(s.mix))
}

func (s *Session) checkImages(images []float32, n int) error {
	if n < 1 {
		return fmt.Errorf("%d images: at least one is needed", n)
	}
	e := s.model.ImageElems()
	if len(images)/e < n {
		return fmt.Errorf("%d images of shape %v are %d numbers; %d were given", n, s.model.Image, n*e, len(images))
	}
	return nil
}

func (s *Session) checkLabelled(images []float32, labels []int32, n int) error {
	if err := s.checkImages(images, n); err != nil {
		return err
	}
	if len(labels) < n {
		return fmt.Errorf("%d images and only %d labels", n, len(labels))
	}
	return s.checkLabels(labels[:n])
}

func (s *Session) checkLabels(labels []int32) error {
	for i, l := range labels {
		if l < 0 || int(l) >= s.model.Classes {
			return fmt.Errorf("label %d of sample %d is not a class; the model has classes 0 … %d", l, i, s.model.Classes-1)
		}
	}
	return nil
}

// checkMix checks what Samples say of two labels.
func (s *Session) checkMix(b *Samples) error {
	switch n := len(b.Labels); {
	case b.Labels2 == nil && b.Mix == nil:
		return nil
	case b.Index != nil:
		return errors.New("images that Upload put on the device have one label each")
	case s.mix == nil:
		return fmt.Errorf("model %s takes one label a sample: %s has neither mixup nor cutmix in data.augment", s.model.Name, s.model.SpecFile)
	case len(b.Labels2) != n || len(b.Mix) != n:
		return fmt.Errorf("%d labels, %d second labels and %d weights: as many of each are needed", n, len(b.Labels2), len(b.Mix))
	}
	for i, w := range b.Mix {
		if !(w >= 0 && w <= 1) {
			return fmt.Errorf("weight %g of the label of sample %d is not in 0 … 1", w, i)
		}
	}
	return s.checkLabels(b.Labels2)
}

func (s *Session) checkSamples(b *Samples) error {
	if err := s.checkMix(b); err != nil {
		return err
	}
	if b.Index == nil {
		return s.checkLabelled(b.Images, b.Labels, len(b.Labels))
	}
	if len(b.Index) < 1 {
		return errors.New("0 images: at least one is needed")
	}
	for _, i := range b.Index {
		if i < 0 || int(i) >= s.uploaded {
			return fmt.Errorf("image %d is not on the device; it holds %d (Upload)", i, s.uploaded)
		}
	}
	return nil
}

func (s *Session) checkEffective(b *Samples) error {
	if err := s.checkSamples(b); err != nil {
		return err
	}
	if most := s.model.Batch * s.model.Train.Accumulate; b.Len() > most {
		return fmt.Errorf("%d images are more than the effective batch of %d (train.batch × train.accumulate)", b.Len(), most)
	}
	return nil
}

// Images is a data set of 8-bit images, as package data's are.
type Images interface {
	Len() int
	// Shape of an image: channels, height, width.
	Shape() [3]int
	// Sample writes the pixels of sample i, channel by channel and row by row,
	// and returns its label. It may be called from several goroutines.
	Sample(i int, pixels []uint8) (label int, err error)
}

// CanUpload reports whether the device can keep a data set (Upload).
func (s *Session) CanUpload() bool {
	if s.lockBusy() != nil {
		return false
	}
	defer s.mu.Unlock()
	_, ok := s.dev.(Resident)
	return ok && (s.model.CUDA == nil || s.model.CUDA.Gather >= 0)
}

// Upload keeps a data set in the device's memory, in place of the one before.
// Samples name its images by Index from then on, and no image has to be copied
// in a step. table has 256 numbers for each channel: what a pixel becomes; with
// a Normalizer's, results are bit for bit those of the same images normalized
// by it. The error is an *ErrNoRoom if the device's memory cannot hold it.
func (s *Session) Upload(images Images, table []float32) (err error) {
	defer recovered("upload", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	device, ok := s.dev.(Resident)
	switch {
	case !ok:
		return fmt.Errorf("%s does not keep data sets", s.dev.Name())
	case images.Shape() != s.model.Image:
		return fmt.Errorf("images of %v for a model of images of %v", images.Shape(), s.model.Image)
	case len(table) != 256*s.model.Image[0]:
		return fmt.Errorf("a table of %d numbers for %d channels", len(table), s.model.Image[0])
	case images.Len() < 1:
		return errors.New("an empty data set")
	}
	s.uploaded = 0
	if err := device.Upload(images.Len(), images.Sample, table); err != nil {
		return err
	}
	s.uploaded = images.Len()
	return nil
}
