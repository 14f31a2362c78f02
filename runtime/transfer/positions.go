package transfer

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// layout is how a table of positions is made up: first the rows of class
// tokens, then a row for each patch, row by row.
type layout struct {
	prefix int
	grid   [2]int // rows, columns of patches
}

func (l layout) rows() int { return l.prefix + l.grid[0]*l.grid[1] }

func (l layout) String() string { return fmt.Sprintf("%d×%d", l.grid[0], l.grid[1]) }

// patchOf is the side of the model's patches; 0 if it has no patch embedding.
// Its weight [D, C, P, P] is the only parameter of four dimensions that there is.
func patchOf(m *runtime.Model) int {
	for i := range m.Params {
		if s := m.Params[i].Shape; len(s) == 4 && s[1] == m.Image[0] && s[2] == s[3] && s[2] > 0 {
			return s[2]
		}
	}
	return 0
}

// layoutOf is the layout of a parameter, if it is a table of positions
// [1, T, D] for the patches of the model and at most its class tokens. A table
// longer than that has no grid.
func layoutOf(m *runtime.Model, p *runtime.Param) (layout, bool) {
	patch := patchOf(m)
	if len(p.Shape) != 3 || p.Shape[0] != 1 || p.Shape[1] < 2 || patch == 0 {
		return layout{}, false
	}
	tokens := 0
	for i := range m.Params {
		if s := m.Params[i].Shape; len(s) == 3 && s[0] == 1 && s[1] == 1 && s[2] == p.Shape[2] {
			tokens++
		}
	}
	l := layout{grid: [2]int{m.Image[1] / patch, m.Image[2] / patch}}
	l.prefix = p.Shape[1] - l.rows()
	return l, l.prefix >= 0 && l.prefix <= tokens
}

// fileLayout is the layout of a file's table of so many rows, for a model with
// the layout to.
func fileLayout(m *runtime.Model, f *safetensors.File, given [2]int, rows int, to layout) (layout, error) {
	from := layout{prefix: to.prefix, grid: given}
	if given != [2]int{} {
		// rows - prefix first: the product of what is given may overflow.
		if n := rows - to.prefix; given[0] < 1 || given[1] < 1 || given[0] > n || given[1] > n/given[0] || from.rows() != rows {
			return from, fmt.Errorf("--init-grid %dx%d does not make %d rows with %d of class tokens", given[0], given[1], rows, to.prefix)
		}
		return from, nil
	}
	if image, ok := imageOf(f); ok {
		patch := patchOf(m)
		from.grid = [2]int{image[1] / patch, image[2] / patch}
		if from.rows() == rows {
			return from, nil
		}
	}
	side := int(math.Round(math.Sqrt(float64(max(rows-to.prefix, 0)))))
	from.grid = [2]int{side, side}
	if side < 1 || from.rows() != rows {
		return from, fmt.Errorf("%d rows are %d of class tokens and no square of patches; --init-grid ROWSxCOLUMNS says what they are", rows, to.prefix)
	}
	return from, nil
}

// maxSide bounds the image size believed of a file.
const maxSide = 1 << 16

// imageOf is the image size that the file's metadata states.
func imageOf(f *safetensors.File) (image [3]int, ok bool) {
	parts := strings.Split(f.Metadata[runtime.ImageKey], ",")
	if len(parts) != 3 {
		return image, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > maxSide {
			return image, false
		}
		image[i] = n
	}
	return image, true
}

// resample brings a table [from.rows(), d] to to.rows() rows: class tokens as
// they are, patches by bicubic interpolation of their grid. It is
// torch.nn.functional.interpolate(mode="bicubic", align_corners=False,
// antialias=True), which timm uses, computed in float64.
func resample(table []float32, d int, from, to layout) []float32 {
	out := make([]float32, to.rows()*d)
	copy(out, table[:from.prefix*d])
	grid := table[from.prefix*d:]
	columns, rows := cubics(from.grid[1], to.grid[1]), cubics(from.grid[0], to.grid[0])
	h, w := from.grid[0], to.grid[1]
	wide := make([]float64, h*w*d) // rows of the file, columns of the model
	for y := range h {
		for x, f := range columns {
			dst := wide[(y*w+x)*d:][:d]
			for k, weight := range f.weights {
				for c, v := range grid[(y*from.grid[1]+f.first+k)*d:][:d] {
					dst[c] += weight * float64(v)
				}
			}
		}
	}
	sum := make([]float64, d)
	for y, f := range rows {
		for x := range w {
			clear(sum)
			for k, weight := range f.weights {
				for c, v := range wide[((f.first+k)*w+x)*d:][:d] {
					sum[c] += weight * v
				}
			}
			dst := out[(to.prefix+y*w+x)*d:][:d]
			for c, v := range sum {
				dst[c] = float32(v)
			}
		}
	}
	return out
}

// filter is the weights of inputs first, first+1, … for one output.
type filter struct {
	first   int
	weights []float64
}

// cubics are the filters from in to out points: Keys's cubic, stretched when
// shrinking so that every point counts, and normalized where the border cuts
// it off (ATen/native/cpu/UpSampleKernel.cpp, as Pillow's Resample.c).
func cubics(in, out int) []filter {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	filters := make([]filter, out)
	for i := range filters {
		center := scale * (float64(i) + 0.5)
		first := max(0, int(center-2*stretch+0.5))
		end := min(in, int(center+2*stretch+0.5))
		weights, sum := make([]float64, end-first), 0.0
		for k := range weights {
			weights[k] = keys((float64(k+first) - center + 0.5) / stretch)
			sum += weights[k]
		}
		for k := range weights {
			weights[k] /= sum
		}
		filters[i] = filter{first, weights}
	}
	return filters
}

// keys is the cubic convolution kernel of R. Keys (1981) with a = -1/2.
func keys(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return a * (((x-5)*x+8)*x - 4)
	}
	return 0
}
