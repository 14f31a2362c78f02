package cuda

import (
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/plan"
)

// fixed prints the kernels that are no part of the graph: they bring data and
// parameters into the form in which programs read them.
func fixed(w io.Writer, p *plan.Plan) {
	d := p.Device
	k := d.Gather
	fmt.Fprint(w, "\n// The images and labels of a batch, out of a data set that lies on the device.\n")
	fmt.Fprintf(w, "// %s\n", launchText(k))
	signature(w, k, fmt.Sprint(k.PerSM), []string{"const uint8_t* __restrict__ images", "const int32_t* __restrict__ labels",
		"const int32_t* __restrict__ index", "const float* __restrict__ table", "float* __restrict__ image_out", "int32_t* __restrict__ label_out"})
	call(w)
	fmt.Fprintf(w, "  vg_gather<%d, %d, %d, %d>(c, images, labels, index, table, image_out, label_out);\n}\nVG_EXPORT(%s)\n",
		p.Batch, p.Image[0], p.Image[1], p.Image[2], k.Name)
	if k = d.Halve; k == nil {
		return
	}
	fmt.Fprint(w, "\n// The parameters rounded to bf16, after they were set from outside.\n")
	fmt.Fprintf(w, "// %s\n", launchText(k))
	signature(w, k, fmt.Sprint(k.PerSM), []string{"const float* __restrict__ params", "vg_bf16* __restrict__ half"})
	call(w)
	fmt.Fprintf(w, "  vg_halve(c, %d, params, half);\n}\nVG_EXPORT(%s)\n", p.Layout.Elems, k.Name)
}

// call prints the kernel's view of its launch.
func call(w io.Writer) {
	fmt.Fprint(w, "  const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()};\n")
}
