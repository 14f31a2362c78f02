package data

import (
	"fmt"
	"io"
)

// Preparer makes of any picture what evaluation gives to the model: decoded,
// brought to the model's channels and size, normalized. As in Pillow's
// Image.open, the orientation that EXIF tells is not applied. It may be used
// from several goroutines.
type Preparer struct {
	fitter
	normalize *Normalizer
}

// NewPreparer takes of c what concerns pictures: Image, Name and Fit. mean and
// std are as for NewNormalizer.
func NewPreparer(c Config, mean, std []float64) (*Preparer, error) {
	f, err := newFitter(c)
	if err != nil {
		return nil, err
	}
	z, err := NewNormalizer(c.Image, mean, std)
	if err != nil {
		return nil, err
	}
	return &Preparer{f, z}, nil
}

// File prepares a JPEG or PNG file: dst receives [C, H, W]. The error names the
// file.
func (p *Preparer) File(path string, dst []float32) error {
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	var err error
	if m.file, err = readFile(path, m.file); err != nil {
		return err
	}
	if err := p.prepare(m, dst); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Decode is File of all that r holds. Of more than maxFileBytes or maxPixels it
// is an error.
func (p *Preparer) Decode(r io.Reader, dst []float32) error {
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	var err error
	if m.file, err = readAll(r, m.file); err != nil {
		return err
	}
	return p.prepare(m, dst)
}

// prepare makes dst of m.file.
func (p *Preparer) prepare(m *scratch, dst []float32) error {
	n := p.shape[0] * p.shape[1] * p.shape[2]
	if len(dst) != n {
		return fmt.Errorf("a place of %d numbers for a picture of %s", len(dst), shapeText(p.shape))
	}
	pixels := make([]uint8, n)
	if err := p.make(m, pixels, nil); err != nil {
		return err
	}
	p.normalize.Apply(dst, pixels)
	return nil
}

// fitter brings pictures of any size to one shape.
type fitter struct {
	shape   [3]int // channels, height, width
	stretch bool
}

// newFitter: pictures are fitted as c.Fit says. Without it, image_folder's are
// cropped and those of other data sets, which are all of one shape, stretched as
// Resize does.
func newFitter(c Config) (fitter, error) {
	f := fitter{shape: c.Image}
	switch {
	case c.Fit == "stretch", c.Fit == "" && c.Name != "image_folder":
		f.stretch = true
	case c.Fit != "crop" && c.Fit != "":
		return f, fmt.Errorf("pictures are fitted by crop or stretch, not %q", c.Fit)
	}
	if c.Image[0] != 1 && c.Image[0] != 3 {
		return f, fmt.Errorf("a model of %d channels: pictures have 1 (gray) or 3 (RGB)", c.Image[0])
	}
	if c.Image[1] < 1 || c.Image[2] < 1 {
		return f, fmt.Errorf("a model of images of %s", shapeText(c.Image))
	}
	return f, nil
}

// place says how a picture of a size is brought to the shape: scaled to full,
// of which the window is taken.
//
// To stretch is to scale to the height and width wanted. To crop is torchvision's
// Resize and CenterCrop: one side is scaled to what is wanted and the other in
// proportion, rounded down, so that the picture covers the shape; what is over
// is cut off at both ends, alike but for an odd pixel.
func (f *fitter) place(height, width int) (full [2]int, window box) {
	h, w := f.shape[1], f.shape[2]
	full = [2]int{h, w}
	if !f.stretch {
		if h*width >= w*height {
			full[1] = max(w, h*width/height)
		} else {
			full[0] = max(h, w*height/width)
		}
	}
	return full, box{halfEven(full[0] - h), halfEven(full[1] - w), h, w}
}

// halfEven is n/2, of two as near the even one.
func halfEven(n int) int { return n/2 + n&1*(n/2&1) }

// make makes the picture in m.file: all of it, fitted, or the box that choose
// takes, scaled to the shape.
func (f *fitter) make(m *scratch, dst []uint8, choose chooser) error {
	p, err := openPicture(m.file)
	if err != nil {
		return err
	}
	part := box{0, 0, p.height, p.width}
	var full [2]int
	var window box
	if choose == nil {
		full, window = f.place(p.height, p.width)
	} else {
		part = choose(p.height, p.width)
		full = [2]int{f.shape[1], f.shape[2]}
		window = box{0, 0, full[0], full[1]}
	}
	if most := max(full[0], full[1]); most > maxSide {
		return fmt.Errorf("%d×%d pixels would be scaled to %d×%d", p.width, p.height, full[1], full[0])
	}
	img, err := p.decode()
	if err != nil {
		return err
	}
	channels, plane, out := f.shape[0], part.height*part.width, window.height*window.width
	src := m.room(channels * plane)
	if err := p.planes(src, img, part, channels); err != nil {
		return err
	}
	m.resizer.reset([2]int{part.height, part.width}, full, window)
	for c := range channels {
		m.resizer.apply(dst[c*out:][:out], src[c*plane:][:plane], part.width)
	}
	return nil
}

// maxSide bounds what a picture of an extreme shape is scaled to before it is
// cropped.
const maxSide = 1 << 24
