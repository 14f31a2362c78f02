package data

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nearest classifies by the nearest class mean and returns the accuracy: a
// floor for what a data set lets one learn.
func nearest(t *testing.T, s Split) float64 {
	t.Helper()
	n := pixels(s.Train)
	k := len(s.Train.Classes())
	means, counts := make([][]float64, k), make([]float64, k)
	for c := range means {
		means[c] = make([]float64, n)
	}
	image := make([]uint8, n)
	for i := range s.Train.Len() {
		label := sample(t, s.Train, i, image)
		counts[label]++
		for j, v := range image {
			means[label][j] += float64(v)
		}
	}
	right := 0
	for i := range s.Val.Len() {
		label := sample(t, s.Val, i, image)
		best, least := -1, math.Inf(1)
		for c, m := range means {
			d := 0.0
			for j, v := range image {
				e := float64(v) - m[j]/counts[c]
				d += e * e
			}
			if d < least {
				best, least = c, d
			}
		}
		if best == label {
			right++
		}
	}
	return float64(right) / float64(s.Val.Len())
}

// sample is a data set's sample that must be readable.
func sample(t testing.TB, d Dataset, i int, pixels []uint8) int {
	t.Helper()
	label, err := d.Sample(i, pixels)
	if err != nil {
		t.Fatal(err)
	}
	return label
}

func TestDigits(t *testing.T) {
	s, err := Open(Config{Name: "digits", Image: [3]int{1, 8, 8}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len() != 1442 || s.Val.Len() != 355 {
		t.Errorf("%d training and %d validation samples", s.Train.Len(), s.Val.Len())
	}
	// The counts scikit-learn's load_digits().target has.
	want := []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}
	got, val := make([]int, 10), make([]int, 10)
	image := make([]uint8, 64)
	largest := uint8(0)
	for i := range s.Train.Len() {
		got[sample(t, s.Train, i, image)]++
		largest = max(largest, slices.Max(image))
	}
	for i := range s.Val.Len() {
		val[sample(t, s.Val, i, image)]++
	}
	for c := range got {
		if got[c]+val[c] != want[c] || val[c] != want[c]/5 {
			t.Errorf("class %d: %d + %d samples, want %d in all", c, got[c], val[c], want[c])
		}
	}
	if largest != 255 {
		t.Errorf("the brightest pixel is %d", largest)
	}
	// load_digits().images[0][0] = 0 0 5 13 9 1 0 0, times 255/16.
	if label := sample(t, s.Train, 0, image); label != 0 || !slices.Equal(image[:8], []uint8{0, 0, 80, 207, 143, 16, 0, 0}) {
		t.Errorf("the first sample is a %d: %v", label, image[:8])
	}
	if acc := nearest(t, s); acc < 0.85 {
		t.Errorf("class means classify only %.1f %% of the digits", 100*acc)
	}
}

func TestSynthetic(t *testing.T) {
	c := Config{Name: "synthetic", Image: [3]int{3, 10, 7}, Classes: 5, Train: 400, Val: 200, Seed: 3}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if acc := nearest(t, s); acc < 0.6 {
		t.Errorf("class means classify only %.1f %%", 100*acc)
	}
	again, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Seed++
	other, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	a, b := make([]uint8, 210), make([]uint8, 210)
	differ, overlap := false, 0
	for i := range 20 {
		la, lb := sample(t, s.Train, i, a), sample(t, again.Train, i, b)
		if la != lb || !slices.Equal(a, b) {
			t.Errorf("sample %d is not repeatable", i)
		}
		sample(t, other.Train, i, b)
		differ = differ || !slices.Equal(a, b)
		if sample(t, s.Val, i, b); slices.Equal(a, b) {
			overlap++
		}
	}
	if !differ || overlap > 0 {
		t.Errorf("seed has an effect: %v; %d training samples are in validation", differ, overlap)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Name: "digit"}, "did you mean digits?"},
		{Config{Name: "../etc"}, "there are cifar10, digits, fashion_mnist, image_folder, mnist, synthetic"},
		{Config{Name: "mnist"}, "--data-dir"},
		{Config{Name: "fashion_mnist", Dir: dir}, dir + ": put there the four files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"},
		{Config{Name: "digits", Image: [3]int{1, 16, 16}, Classes: 10}, "1×8×8, the model takes 1×16×16; set data.digits.resize: [16, 16]"},
		{Config{Name: "digits", Image: [3]int{3, 8, 8}, Classes: 10}, "the model takes 3×8×8"},
		{Config{Name: "digits", Image: [3]int{1, 8, 8}, Classes: 9}, "10 classes"},
		{Config{Name: "synthetic", Image: [3]int{1, 8, 8}, Classes: 9}, "needs samples"},
	} {
		_, err := Open(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.config, err, c.want)
		}
	}
}

// constant is a data set that counts how often samples are made.
type constant struct {
	made []int
}

func (c *constant) Len() int          { return len(c.made) }
func (c *constant) Shape() [3]int     { return [3]int{2, 3, 4} }
func (c *constant) Classes() []string { return []string{"a", "b", "c"} }
func (c *constant) Sample(i int, p []uint8) (int, error) {
	c.made[i]++
	for j := range p {
		p[j] = uint8(i + j)
	}
	return i % 3, nil
}

func TestCached(t *testing.T) {
	source := &constant{made: make([]int, 10)}
	d := Cached(Resized(source, [2]int{5, 6}), 1<<20)
	if d.Shape() != [3]int{2, 5, 6} || d.Len() != 10 || len(d.Classes()) != 3 {
		t.Errorf("shape %v, %d samples", d.Shape(), d.Len())
	}
	first, second := make([]uint8, 60), make([]uint8, 60)
	for i := range 10 {
		if a, b := sample(t, d, i, first), sample(t, d, i, second); a != b || a != i%3 || !slices.Equal(first, second) {
			t.Errorf("sample %d changes when it is cached", i)
		}
		if source.made[i] != 1 {
			t.Errorf("sample %d was made %d times", i, source.made[i])
		}
	}
	if d := Cached(source, 239); d != Dataset(source) {
		t.Error("the limit is not kept")
	}
}

func TestNormalizer(t *testing.T) {
	z, err := NewNormalizer([3]int{2, 1, 2}, []float64{0.5, 0.25}, []float64{0.5, 2})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 4)
	z.Apply(got, []uint8{0, 255, 0, 51})
	for i, want := range []float64{-1, 1, -0.125, (0.2 - 0.25) / 2} {
		if math.Abs(float64(got[i])-want) > 1e-7 {
			t.Errorf("element %d is %g, want %g", i, got[i], want)
		}
	}
	if z, err = NewNormalizer([3]int{3, 1, 1}, nil, nil); err != nil {
		t.Fatal(err)
	}
	z.Apply(got, []uint8{0, 51, 255})
	if got[0] != 0 || got[1] != float32(51)/255 || got[2] != 1 {
		t.Errorf("without mean and std: %v", got[:3])
	}
	for _, bad := range [][2][]float64{{{1, 2}, nil}, {nil, {0}}, {nil, {-1}}, {nil, {math.NaN()}}} {
		if _, err := NewNormalizer([3]int{3, 1, 1}, bad[0], bad[1]); err == nil {
			t.Errorf("mean %v, std %v are accepted", bad[0], bad[1])
		}
	}
}

func TestLoader(t *testing.T) {
	const n = 23
	for _, size := range []int{1, 5, 23, 100} {
		for _, workers := range []int{0, 1, 3, 50} {
			var epochs [2][]int
			for epoch := range epochs {
				source := &constant{made: make([]int, n)}
				z, err := NewNormalizer(source.Shape(), nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				d := Cached(source, 1<<20) // the workers must not write into one counter
				l := &Loader{Data: d, Normalize: z, Batch: size, Shuffle: true, Seed: 7, Workers: workers}
				batches := 0
				for b, err := range l.Epoch(epoch, 0) {
					if err != nil {
						t.Fatal(err)
					}
					batches++
					if want := min(size, n-(batches-1)*size); b.Len() != want || len(b.Images) != want*24 {
						t.Fatalf("batch %d of size %d has %d samples", batches, size, b.Len())
					}
					for i, label := range b.Labels {
						sample := int(math.Round(float64(b.Images[i*24]) * 255))
						if int(label) != sample%3 || b.Numbers[i] != sample {
							t.Fatalf("sample %d has label %d and number %d", sample, label, b.Numbers[i])
						}
						epochs[epoch] = append(epochs[epoch], sample)
					}
				}
				if batches != l.Batches() {
					t.Errorf("%d batches, want %d", batches, l.Batches())
				}
				if !slices.Equal(epochs[epoch], l.Order(epoch)) {
					t.Errorf("batches of %d by %d workers: order %v, want %v", size, workers, epochs[epoch], l.Order(epoch))
				}
			}
			if slices.Equal(epochs[0], epochs[1]) {
				t.Error("both epochs have the same order")
			}
		}
	}
}

// TestLoaderStops: leaving the loop ends the goroutines (the race detector and
// a deadlock would tell) and the loader can be used again.
func TestLoaderStops(t *testing.T) {
	d := Cached(&constant{made: make([]int, 50)}, 1<<20)
	z, err := NewNormalizer(d.Shape(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &Loader{Data: d, Normalize: z, Batch: 3, Workers: 2}
	for stop := range 10 {
		i := 0
		for b, err := range l.Epoch(0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if b.Labels[0] != int32(3*i%3) {
				t.Fatalf("batch %d starts with label %d", i, b.Labels[0])
			}
			if i++; i > stop {
				break
			}
		}
	}
}

func TestMNIST(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "FashionMNIST", "raw")
	write := func(name string, data []byte) {
		t.Helper()
		write(t, filepath.Join(raw, name), data)
	}
	c := Config{Name: "fashion_mnist", Dir: dir, Image: [3]int{1, 4, 6}, Classes: 10, Resize: [2]int{4, 6}}
	write(trainImages+".gz", zip(idx(idxImages, []int{3, 2, 3}, seq(18))))
	write("train-labels.idx1-ubyte", idx(idxLabels, []int{3}, []byte{9, 0, 5}))
	write(testImages, idx(idxImages, []int{1, 2, 3}, seq(6)))
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "incomplete: "+testLabels+" missing") {
		t.Errorf("an absent file: %v", err)
	}
	write(testLabels, idx(idxLabels, []int{1}, []byte{1}))
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len() != 3 || s.Val.Len() != 1 || s.Train.Classes()[9] != "ankle boot" || s.Train.Shape() != c.Image {
		t.Errorf("%d and %d samples of %v", s.Train.Len(), s.Val.Len(), s.Train.Shape())
	}
	if label := sample(t, s.Train, 2, make([]uint8, 24)); label != 5 {
		t.Errorf("label %d", label)
	}
	for _, bad := range []struct{ name, want string }{
		{testLabels, "label 10 of sample 0"},
		{testImages, "has 1 images but"},
	} {
		if bad.name == testLabels {
			write(testLabels, idx(idxLabels, []int{1}, []byte{10}))
		} else {
			write(testLabels, idx(idxLabels, []int{2}, []byte{1, 1}))
		}
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), raw) {
			t.Errorf("error %v, want one with %q", err, bad.want)
		}
	}
}

func seq(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func ExampleNames() {
	fmt.Println(Names())
	// Output: [cifar10 digits fashion_mnist image_folder mnist synthetic]
}
