package data

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"image"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pillowCase is a picture file with what Pillow makes of it
// (testdata/make_pictures.py).
type pillowCase struct {
	Name          string
	File          []byte
	Size, Fit     [2]int
	RGB, Gray     []byte
	Crop, Stretch []byte // of Fit's size
}

func pillowCases(t testing.TB) []pillowCase {
	t.Helper()
	text, err := os.ReadFile("testdata/pictures.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Cases []pillowCase }
	if err := json.Unmarshal(text, &golden); err != nil { // []byte is base64 in JSON
		t.Fatal(err)
	}
	if len(golden.Cases) < 25 {
		t.Fatalf("only %d cases", len(golden.Cases))
	}
	return golden.Cases
}

// planar rearranges Pillow's pixels, color by color, to planes.
func planar(pixels []byte) []byte {
	out := make([]byte, 0, len(pixels))
	for c := range 3 {
		for i := c; i < len(pixels); i += 3 {
			out = append(out, pixels[i])
		}
	}
	return out
}

// jpegTolerance bounds what a pixel of a JPEG may differ from libjpeg's. Both
// round the inverse cosine transform to 8 bits in their own way, which differs
// by one step now and then; the conversion from YCbCr to RGB multiplies that by
// up to 1.772, and chroma and luma may both be off. Nine pixels of ten are the
// same.
const jpegTolerance = 3

// same compares pixels with Pillow's: exactly, unless they come from a JPEG.
func same(t *testing.T, what, name string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s, %s: %d pixels, want %d", name, what, len(got), len(want))
		return
	}
	tolerance := 0
	if strings.HasPrefix(name, "jpeg") {
		tolerance = jpegTolerance
	}
	worst, differ := 0, 0
	for i := range got {
		d := int(got[i]) - int(want[i])
		worst = max(worst, d, -d)
		if d != 0 {
			differ++
		}
	}
	if worst > tolerance || len(got) >= 100 && 10*differ > len(got) {
		t.Errorf("%s, %s: off by %d, %d of %d pixels differ", name, what, worst, differ, len(got))
	}
}

// TestPicturesArePillows: every kind of file is decoded, converted, scaled and
// cropped as Pillow does it.
func TestPicturesArePillows(t *testing.T) {
	for _, c := range pillowCases(t) {
		p, err := openPicture(c.File)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if [2]int{p.height, p.width} != c.Size {
			t.Errorf("%s: %d×%d, want %v", c.Name, p.height, p.width, c.Size)
			continue
		}
		img, err := p.decode()
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		whole := box{0, 0, p.height, p.width}
		n := p.height * p.width
		rgb, gray := make([]byte, 3*n), make([]byte, n)
		if err := p.planes(rgb, img, whole, 3); err != nil {
			t.Error(err)
		}
		if err := p.planes(gray, img, whole, 1); err != nil {
			t.Error(err)
		}
		same(t, "rgb", c.Name, rgb, planar(c.RGB))
		same(t, "gray", c.Name, gray, c.Gray)
		boxes(t, &c, p, rgb)
		if c.Fit == [2]int{} {
			continue
		}
		for fit, want := range map[string][]byte{"crop": c.Crop, "stretch": c.Stretch} {
			f, err := newFitter(Config{Image: [3]int{3, c.Fit[0], c.Fit[1]}, Fit: fit})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if err := f.make(&scratch{file: c.File}, got, nil); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
			same(t, fit, c.Name, got, planar(want))
		}
	}
}

// boxes checks that a box of a picture is what it is in the whole.
func boxes(t *testing.T, c *pillowCase, p *picture, rgb []byte) {
	t.Helper()
	img, err := p.decode()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []box{{0, 0, 1, 1}, {p.height - 1, p.width / 2, 1, p.width - p.width/2}, {p.height / 3, p.width / 3, p.height / 2, p.width / 2}} {
		if b.height == 0 || b.width == 0 {
			continue
		}
		got := make([]byte, 3*b.height*b.width)
		if err := p.planes(got, img, b, 3); err != nil {
			t.Error(err)
		}
		for ch := range 3 {
			for y := range b.height {
				have := got[(ch*b.height+y)*b.width:][:b.width]
				want := rgb[(ch*p.height+b.top+y)*p.width+b.left:][:b.width]
				if !bytes.Equal(have, want) {
					t.Errorf("%s: row %d of %v: %v, want %v", c.Name, y, b, have, want)
				}
			}
		}
	}
}

// TestPreparer: a file and a reader give the fitted picture, normalized.
func TestPreparer(t *testing.T) {
	c := pillowCases(t)[3] // png rgb
	config := Config{Name: "image_folder", Image: [3]int{3, 6, 6}}
	p, err := NewPreparer(config, []float64{0.5, 0.25, 0}, []float64{0.5})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.png")
	if err := os.WriteFile(path, c.File, 0o644); err != nil {
		t.Fatal(err)
	}
	file, read := make([]float32, 108), make([]float32, 108)
	if err := p.File(path, file); err != nil {
		t.Fatal(err)
	}
	if err := p.Decode(bytes.NewReader(c.File), read); err != nil {
		t.Fatal(err)
	}
	for i, v := range planar(c.Crop) { // image_folder's way
		want := (float32(v)/255 - []float32{0.5, 0.25, 0}[i/36]) / 0.5
		if file[i] != want || read[i] != want {
			t.Fatalf("element %d: %g and %g, want %g", i, file[i], read[i], want)
		}
	}
	for what, bad := range map[string]struct {
		file []byte
		want string
	}{
		"empty":             {nil, "the file is empty"},
		"text":              {[]byte("not a picture at all"), "neither JPEG nor PNG"},
		"WebP":              {[]byte("RIFF1234WEBPVP8 "), "a WebP file"},
		"truncated":         {c.File[:len(c.File)-14], "PNG: the file is truncated"},
		"truncated header":  {c.File[:20], "PNG header: the file is truncated"},
		"damaged":           {damaged(c.File), "PNG: "},
		"a bomb":            {bomb(60000, 60000), "60000×60000 pixels; at most"},
		"an endless needle": {bomb(1<<24, 1), "would be scaled to"},
	} {
		err := p.Decode(bytes.NewReader(bad.file), read)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: error %v, want one with %q", what, err, bad.want)
		}
		if err := os.WriteFile(path, bad.file, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := p.File(path, read); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: error %v without the file", what, err)
		}
	}
	if err := p.File(t.TempDir(), read); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if err := p.Decode(bytes.NewReader(c.File), read[:5]); err == nil {
		t.Error("a place that is too small is accepted")
	}
	for _, bad := range []Config{{Image: [3]int{3, 6, 6}, Fit: "pad"}, {Image: [3]int{4, 6, 6}}, {Image: [3]int{1, 0, 6}}} {
		if _, err := NewPreparer(bad, nil, nil); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// damaged has a bit wrong in the middle of the pixels.
func damaged(file []byte) []byte {
	d := bytes.Clone(file)
	d[len(d)/2] ^= 8
	return d
}

// bomb is a PNG header that announces a picture.
func bomb(width, height uint32) []byte {
	head := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	head = append(binary.BigEndian.AppendUint32(head, height), 8, 2, 0, 0, 0)
	file := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), head...)
	return binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE(head))
}

// TestPlace compares with sizes that torchvision gives: Resize(short side) and
// CenterCrop.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		fit    string
		shape  [2]int
		in     [2]int
		full   [2]int
		offset [2]int
	}{
		{"crop", [2]int{224, 224}, [2]int{375, 500}, [2]int{224, 298}, [2]int{0, 37}},
		{"crop", [2]int{224, 224}, [2]int{500, 333}, [2]int{336, 224}, [2]int{56, 0}},
		{"crop", [2]int{8, 8}, [2]int{8, 9}, [2]int{8, 9}, [2]int{0, 0}},   // round(0.5) = 0
		{"crop", [2]int{8, 8}, [2]int{8, 11}, [2]int{8, 11}, [2]int{0, 2}}, // round(1.5) = 2
		{"crop", [2]int{8, 8}, [2]int{13, 8}, [2]int{13, 8}, [2]int{2, 0}}, // round(2.5) = 2
		{"crop", [2]int{8, 8}, [2]int{15, 8}, [2]int{15, 8}, [2]int{4, 0}}, // round(3.5) = 4
		{"crop", [2]int{10, 20}, [2]int{10, 10}, [2]int{20, 20}, [2]int{5, 0}},
		{"crop", [2]int{20, 10}, [2]int{7, 3}, [2]int{23, 10}, [2]int{2, 0}},
		{"crop", [2]int{4, 4}, [2]int{1, 1}, [2]int{4, 4}, [2]int{0, 0}},
		{"stretch", [2]int{224, 200}, [2]int{375, 500}, [2]int{224, 200}, [2]int{0, 0}},
	} {
		f, err := newFitter(Config{Image: [3]int{3, c.shape[0], c.shape[1]}, Fit: c.fit})
		if err != nil {
			t.Fatal(err)
		}
		full, window := f.place(c.in[0], c.in[1])
		if want := (box{c.offset[0], c.offset[1], c.shape[0], c.shape[1]}); full != c.full || window != want {
			t.Errorf("%s of %v to %v: %v, %v; want %v, %v", c.fit, c.in, c.shape, full, window, c.full, want)
		}
	}
}

// TestDecoderFault: a decoder that panics makes a broken picture, not a crash.
func TestDecoderFault(t *testing.T) {
	p, err := openPicture(pillowCases(t)[0].File)
	if err != nil {
		t.Fatal(err)
	}
	faulty := *p.format
	faulty.decode = func(io.Reader) (image.Image, error) { panic("index out of range") }
	p.format = &faulty
	if img, err := p.decode(); img != nil || err == nil || err.Error() != "PNG: the decoder fails: index out of range" {
		t.Errorf("%v, %v", img, err)
	}
}
