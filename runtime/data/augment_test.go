package data

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// within fails if a share of n draws is five deviations from p, or more.
func within(t *testing.T, what string, count float64, n int, p float64) {
	t.Helper()
	if got := count / float64(n); math.Abs(got-p) > 5*math.Sqrt(p*(1-p)/float64(n)) {
		t.Errorf("%s: %.4f of %d, want %.4f", what, got, n, p)
	}
}

func TestMoves(t *testing.T) {
	const n, padding = 30000, 2
	a := newAugmenter(runtime.Augment{Padding: padding, Flip: 0.3}, 5, 1)
	flips := 0.0
	var at [2*padding + 1][2*padding + 1]float64
	for i := range n {
		top, left, flip := a.move(i)
		at[top+padding][left+padding]++
		if flip {
			flips++
		}
	}
	within(t, "flipped", flips, n, 0.3)
	for y := range at {
		for x := range at[y] {
			within(t, fmt.Sprintf("offset %d, %d", y-padding, x-padding), at[y][x], n, 1./25)
		}
	}
	if top, left, flip := newAugmenter(runtime.Augment{}, 5, 1).move(3); top != 0 || left != 0 || flip {
		t.Error("nothing is asked for and something is done")
	}
	for i := range 100 {
		if _, _, flip := newAugmenter(runtime.Augment{Flip: 1}, 5, 1).move(i); !flip {
			t.Error("a probability of 1 does not always flip")
		}
	}
}

// TestApplyMoved compares with padding, cropping and flipping pixel by pixel.
func TestApplyMoved(t *testing.T) {
	shape := [3]int{2, 4, 5}
	z, err := NewNormalizer(shape, []float64{0.3, 0.6}, []float64{0.5})
	if err != nil {
		t.Fatal(err)
	}
	image := seq(40)
	for i := range image {
		image[i] = image[i]*5 + 1
	}
	got := make([]float32, 40)
	for top := -7; top <= 7; top++ {
		for left := -7; left <= 7; left++ {
			for _, flip := range []bool{false, true} {
				z.ApplyMoved(got, image, top, left, flip)
				for c := range 2 {
					for y := range 4 {
						for x := range 5 {
							from := x
							if flip {
								from = 4 - x
							}
							sy, sx, v := y+top, from+left, uint8(0)
							if sy >= 0 && sy < 4 && sx >= 0 && sx < 5 {
								v = image[(c*4+sy)*5+sx]
							}
							if want := z.table[c][v]; got[(c*4+y)*5+x] != want {
								t.Fatalf("moved by %d, %d, flipped %v: [%d, %d, %d] is %g, want %g", top, left, flip, c, y, x, got[(c*4+y)*5+x], want)
							}
						}
					}
				}
			}
		}
	}
}

// TestResizedCrop: boxes lie in the image, and areas, ratios and places are
// distributed as torchvision's.
func TestResizedCrop(t *testing.T) {
	const n = 20000
	c := runtime.ResizedCrop{Scale: [2]float64{0.2, 0.5}, Ratio: [2]float64{0.5, 2}}
	a := newAugmenter(runtime.Augment{ResizedCrop: c}, 9, 0)
	area, logRatio, middle := 0.0, 0.0, 0.0
	for i := range n {
		b := a.crop(i, 1000, 1000)
		if b.top < 0 || b.left < 0 || b.height < 1 || b.width < 1 || b.top+b.height > 1000 || b.left+b.width > 1000 {
			t.Fatalf("box %v", b)
		}
		part, ratio := float64(b.height*b.width)/1e6, float64(b.width)/float64(b.height)
		if part < 0.198 || part > 0.502 || ratio < 0.49 || ratio > 2.02 {
			t.Fatalf("box %v: area %g, ratio %g", b, part, ratio)
		}
		area += part
		logRatio += math.Log(ratio)
		middle += (float64(b.top) + float64(b.height)/2) / 1000
	}
	// A part of half the area and twice as wide as high, or the other way round,
	// just fits: no draw is refused, so the means are those of the draws.
	for what, m := range map[string][3]float64{
		"area":         {area / n, 0.35, 0.3 / math.Sqrt(12)},
		"log of ratio": {logRatio / n, 0, 2 * math.Ln2 / math.Sqrt(12)},
		"middle":       {middle / n, 0.5, 0.25},
	} {
		if math.Abs(m[0]-m[1]) > 5*m[2]/math.Sqrt(n) {
			t.Errorf("mean %s %g, want %g", what, m[0], m[1])
		}
	}
	// What never fits is the middle, as torchvision's fallback gives it.
	standard := runtime.ResizedCrop{Scale: [2]float64{0.9, 1}, Ratio: [2]float64{3. / 4, 4. / 3}}
	for _, f := range []struct {
		height, width int
		want          box
	}{
		{10, 1000, box{0, 493, 10, 13}},
		{1000, 10, box{493, 0, 13, 10}},
		{1, 1, box{0, 0, 1, 1}},
	} {
		a := newAugmenter(runtime.Augment{ResizedCrop: standard}, 9, 0)
		if got := a.crop(3, f.height, f.width); got != f.want {
			t.Errorf("%d×%d: %v, want %v", f.height, f.width, got, f.want)
		}
	}
	tall := newAugmenter(runtime.Augment{ResizedCrop: runtime.ResizedCrop{Scale: [2]float64{1, 1}, Ratio: [2]float64{50, 100}}}, 9, 0)
	if got := tall.crop(3, 7, 2); got != (box{3, 0, 1, 2}) {
		t.Errorf("a fallback of less than a pixel: %v", got)
	}
}

// TestMixings: λ is Beta(α, α) in mixup; in CutMix the boxes are as large as
// they should be, and the share of the label is what is left of the image.
func TestMixings(t *testing.T) {
	const n = 20000
	if m := newAugmenter(runtime.Augment{}, 1, 1).mixing(0, 8, 8); m.on {
		t.Error("nothing is asked for and samples are mixed")
	}
	mean, square, cuts := 0.0, 0.0, 0.0
	both := newAugmenter(runtime.Augment{Mixup: 0.4, CutMix: 1}, 3, 2)
	for i := range n {
		m := both.mixing(i, 30, 40)
		if !m.on || !(m.keep >= 0 && m.keep <= 1) {
			t.Fatalf("%+v", m)
		}
		if m.cut {
			cuts++
			checkBox(t, m, 30, 40)
			continue
		}
		mean += m.keep
		square += m.keep * m.keep
	}
	within(t, "CutMix", cuts, n, 0.5)
	k := n - cuts
	mean /= k
	variance := square/k - mean*mean
	wantVariance := 0.25 / (2*0.4 + 1)
	if math.Abs(mean-0.5) > 5*math.Sqrt(wantVariance/k) || math.Abs(variance-wantVariance) > 5*0.25/math.Sqrt(k) {
		t.Errorf("λ has mean %g and variance %g, want 0.5 and %g", mean, variance, wantVariance)
	}
	for i := range 100 {
		if !newAugmenter(runtime.Augment{CutMix: 1}, 3, 2).mixing(i, 8, 8).cut || newAugmenter(runtime.Augment{Mixup: 1}, 3, 2).mixing(i, 8, 8).cut {
			t.Error("one alone is not what is used")
		}
	}
	// Of Beta(1, 1), 1-λ has mean ½. A box is cut off at the image's edges; its
	// mean area, computed by the formula, is what the boxes must have.
	cut := newAugmenter(runtime.Augment{CutMix: 1}, 4, 0)
	got, squares := 0.0, 0.0
	for i := range n {
		m := cut.mixing(i, 30, 40)
		got += 1 - m.keep
		squares += (1 - m.keep) * (1 - m.keep)
	}
	got /= n
	if deviation := math.Sqrt((squares/n - got*got) / n); math.Abs(got-meanBox(30, 40)) > 5*deviation {
		t.Errorf("boxes have a mean area of %g, want %g", got, meanBox(30, 40))
	}
}

func checkBox(t *testing.T, m mixing, height, width int) {
	t.Helper()
	b := m.box
	if b.top < 0 || b.left < 0 || b.height < 0 || b.width < 0 || b.top+b.height > height || b.left+b.width > width {
		t.Fatalf("box %v", b)
	}
	if want := 1 - float64(b.height*b.width)/float64(height*width); m.keep != want {
		t.Errorf("box %v: λ is %g, want %g", b, m.keep, want)
	}
}

// meanBox is the mean share of CutMix's boxes for λ uniform in [0, 1], summed
// over places and integrated over λ.
func meanBox(height, width int) float64 {
	const steps = 4000
	side := func(size, length int) float64 { // mean length after cutting off
		sum := 0
		for at := range size {
			sum += min(size, at+length/2) - max(0, at-length/2)
		}
		return float64(sum) / float64(size)
	}
	total := 0.0
	for i := range steps {
		r := math.Sqrt(1 - (float64(i)+0.5)/steps)
		total += side(height, int(float64(height)*r)) * side(width, int(float64(width)*r))
	}
	return total / steps / float64(height*width)
}

// TestMix compares both ways to mix with their definitions, element by element.
func TestMix(t *testing.T) {
	shape := [3]int{2, 3, 4}
	s := rng.New(1, "mix")
	for _, m := range []mixing{
		{on: true, keep: 0.3}, {on: true, keep: 0}, {on: true, keep: 1},
		{on: true, cut: true, box: box{1, 2, 2, 2}}, {on: true, cut: true}, {on: true, cut: true, box: box{0, 0, 3, 4}},
	} {
		var a, b []float32
		for range 24 {
			a, b = append(a, float32(s.Normal())), append(b, float32(s.Normal()))
		}
		x, y := slices.Clone(a), slices.Clone(b)
		m.mix(x, y, shape)
		for i := range a {
			row, column := i/4%3, i%4
			in := row >= m.box.top && row < m.box.top+m.box.height && column >= m.box.left && column < m.box.left+m.box.width
			wantX, wantY := float64(a[i]), float64(b[i])
			switch {
			case m.cut && in:
				wantX, wantY = wantY, wantX
			case !m.cut:
				wantX, wantY = m.keep*wantX+(1-m.keep)*wantY, m.keep*wantY+(1-m.keep)*wantX
			}
			if math.Abs(float64(x[i])-wantX) > 1e-6 || math.Abs(float64(y[i])-wantY) > 1e-6 {
				t.Errorf("%+v: element %d is %g and %g, want %g and %g", m, i, x[i], y[i], wantX, wantY)
			}
		}
	}
}
