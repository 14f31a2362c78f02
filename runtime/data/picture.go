package data

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"sync"
)

// Bounds of what is decoded, against hostile and mistaken files: a header of a
// few bytes can announce gigabytes.
const (
	maxPixels    = 1 << 26 // 8192×8192
	maxFileBytes = 1 << 28
	largePixels  = 1 << 24 // of pictures above it, one is decoded at a time
)

var largePicture sync.Mutex

// format is a kind of picture file, known by its first bytes.
type format struct {
	name   string
	magic  string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// formats can be read if they have functions; the others are known by name.
var formats = []format{
	{"PNG", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
	{"JPEG", "\xff\xd8\xff", jpeg.DecodeConfig, jpeg.Decode},
	{name: "GIF", magic: "GIF8"},
	{name: "BMP", magic: "BM"},
	{name: "TIFF", magic: "II*\x00"},
	{name: "TIFF", magic: "MM\x00*"},
	{name: "WebP", magic: "RIFF"},
	{name: "HEIF or AVIF", magic: "\x00\x00\x00"},
}

// picture is a file's content, with what its header says.
type picture struct {
	file          []byte
	format        *format
	height, width int
	gray16        bool // PNG, 16 bits of gray
}

// openPicture looks at the header of a file.
func openPicture(file []byte) (*picture, error) {
	p, err := parseHeader(bufio.NewReader(bytes.NewReader(file)))
	if err == nil {
		p.file = file
	}
	return p, err
}

// parseHeader reads no more of a file than its header takes.
func parseHeader(r *bufio.Reader) (*picture, error) {
	const depthAt, colorAt = 24, 25 // of a PNG's IHDR, which comes first
	start, err := r.Peek(colorAt + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(start) == 0 {
		return nil, errors.New("the file is empty")
	}
	p := &picture{}
	for i := range formats {
		if bytes.HasPrefix(start, []byte(formats[i].magic)) {
			p.format = &formats[i]
			break
		}
	}
	switch {
	case p.format == nil:
		return nil, errors.New("not a picture: neither JPEG nor PNG by its content")
	case p.format.decode == nil:
		return nil, fmt.Errorf("a %s file by its content; JPEG and PNG can be read", p.format.name)
	}
	p.gray16 = p.format.name == "PNG" && len(start) > colorAt && start[depthAt] == 16 && start[colorAt] == 0
	c, err := p.format.config(r)
	if err != nil {
		return nil, fmt.Errorf("%s header: %w", p.format.name, cause(err))
	}
	// The product fits: both formats have at most 31 bits a side.
	if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > maxPixels {
		return nil, fmt.Errorf("%d×%d pixels; at most %d are read", c.Width, c.Height, maxPixels)
	}
	p.height, p.width = c.Height, c.Width
	return p, nil
}

// decode decodes the picture. A fault of the decoder is an error like any other:
// no file may end training.
func (p *picture) decode() (img image.Image, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			img, err = nil, fmt.Errorf("%s: the decoder fails: %v", p.format.name, fault)
		}
	}()
	if p.height*p.width > largePixels {
		largePicture.Lock()
		defer largePicture.Unlock()
	}
	if img, err = p.format.decode(bytes.NewReader(p.file)); err != nil {
		return nil, fmt.Errorf("%s: %w", p.format.name, cause(err))
	}
	if s := img.Bounds().Size(); s.X != p.width || s.Y != p.height {
		return nil, fmt.Errorf("%s: %d×%d pixels, and %d×%d in the header", p.format.name, s.X, s.Y, p.width, p.height)
	}
	return img, nil
}

// cause is what a decoder's error says, without the name of its package; of a
// file that ends too early, that it does.
func cause(err error) error {
	var inPNG png.FormatError
	var inJPEG jpeg.FormatError
	switch {
	case errors.As(err, &inPNG):
		err = errors.New(string(inPNG))
	case errors.As(err, &inJPEG):
		err = errors.New(string(inJPEG))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || err.Error() == io.ErrUnexpectedEOF.Error() {
		return errors.New("the file is truncated")
	}
	return err
}

// readAll reads a picture file into the buffer, which it enlarges if needed.
func readAll(r io.Reader, buffer []byte) ([]byte, error) {
	b := bytes.NewBuffer(buffer[:0])
	n, err := b.ReadFrom(io.LimitReader(r, maxFileBytes+1))
	if err == nil && n > maxFileBytes {
		err = fmt.Errorf("more than %d bytes", maxFileBytes)
	}
	return b.Bytes(), err
}

// readFile is readAll of a regular file. The error names it.
func readFile(path string, buffer []byte) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return buffer, err
	}
	defer f.Close()
	b, err := readAll(f, buffer)
	if err != nil {
		return b, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// openRegular opens a file that is one: not a directory, and not a pipe, which
// would wait. The error names it.
func openRegular(path string) (*os.File, error) {
	s, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !s.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return os.Open(path)
}
