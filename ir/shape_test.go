package ir_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/ir"
)

const (
	drop2 = "{first_row=0, p=0.5, rows=3, site=0}"
	att   = "{causal=false, heads=2, p=0.0, q_first=0, q_total=3, scale=1.0, site=0}"

	latent = "{causal=false, heads=2, p=0.0, q_first=0, q_total=3, scale=1.0, site=0, sums=false}"
	sums   = "{causal=false, heads=2, p=0.5, q_first=0, q_total=3, scale=1.0, site=0, sums=true}"
	sgdm   = "{momentum=0.9, nesterov=false, weight_decay=0.0}"
	adamw  = "{beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0}"
)

// What each op's shape rule gives, or why it refuses (after "! ").
var shapeTests = []struct{ op, operands, attrs, want string }{
	{"input", "", `{name="x", type=f32[2|3]}`, "f32[2|3]"},
	{"state", "", `{name="x", slot="grad", type=f32[3]}`, "f32[3]"},
	{"param", "", `{name="x", type=bf16[]}`, "bf16[]"},
	{"param", "", `{name="x", type=f32[2,-1]}`, "! type f32[2,-1] has an empty dimension"},
	{"const", "", `{type=f32[], value=0.0}`, "f32[]"},
	{"scalar", "", `{name="lr"}`, "f32[]"},
	{"scalar", "", `{name="rate"}`, `! unknown scalar "rate"`},
	{"sincos", "", "{type=f32[3,4]}", "f32[3,4]"},
	{"sincos", "", "{type=f32[3]}", "! type is f32[3], wants f32[T,D]"},
	{"sincos", "", "{type=f32[-3,-4]}", "! type f32[-3,-4] has an empty dimension"},

	{"reshape", "f32[2|3,4]", "{shape=(2,6)}", "f32[2|2,6]"},
	{"reshape", "i32[3,4]", "{shape=(12)}", "i32[12]"},
	{"reshape", "f32[2|1]", "{shape=()}", "f32[2|]"},
	{"reshape", "f32[2|3,4]", "{shape=(5)}", "! cannot reshape f32[2|3,4] to [5]"},
	{"reshape", "f32[2|3,4]", "{shape=(-3,-4)}", "! cannot reshape f32[2|3,4] to [-3 -4]"},
	{"reshape", "f32[1]", "{shape=(1099511627776,1099511627776,256)}", "! cannot reshape"},
	{"slice_last", "f32[2|3,4]", "{from=1, to=3}", "f32[2|3,2]"},
	{"slice_last", "f32[2|3,4]", "{from=1, to=5}", "! slice 1:5 of extent 4"},
	{"slice_last", "f32[2|3,4]", "{from=2, to=2}", "! slice 2:2 of extent 4"},
	{"slice_last", "f32[2|]", "{from=0, to=1}", "! operand f32[2|] has no last dimension"},
	{"concat_last", "f32[2|3,4], f32[2|3,5]", "", "f32[2|3,9]"},
	{"concat_last", "f32[2|3,4], f32[2|2,4]", "", "! operands f32[2|3,4] and f32[2|2,4] differ before the last dimension"},
	{"concat_last", "f32[2|3,4], bf16[2|3,4]", "", "! operands f32[2|3,4] and bf16[2|3,4] differ"},
	{"concat_last", "f32[2|3,4], f32[2,3,4]", "", "! operands f32[2|3,4] and f32[2,3,4] differ"},
	{"concat_last", "f32[]", "", "! operand f32[] has no last dimension"},
	{"concat_last", "", "", "! has 0 operands, wants at least 1"},
	{"slice_first", "f32[5,2]", "{from=1, to=4}", "f32[3,2]"},
	{"slice_first", "f32[5,2]", "{from=-1, to=4}", "! slice -1:4 of extent 5"},
	{"slice_first", "f32[5|2]", "{from=0, to=1}", "! operand f32[5|2] is batched or scalar"},
	{"concat_first", "f32[5,2], f32[1,2]", "", "f32[6,2]"},
	{"concat_first", "f32[5], f32[1]", "", "f32[6]"},
	{"concat_first", "f32[5,2], f32[1,3]", "", "! operands f32[5,2] and f32[1,3] cannot be stacked"},
	{"concat_first", "f32[5|2], f32[5|2]", "", "! operands f32[5|2] and f32[5|2] cannot be stacked"},

	{"add", "f32[2|3,4], f32[2|3,4]", "", "f32[2|3,4]"},
	{"add", "f32[2|3,4], f32[3,4]", "", "f32[2|3,4]"},
	{"add", "f32[2|3,4], f32[4]", "", "f32[2|3,4]"},
	{"mul", "f32[2|3,4], f32[]", "", "f32[2|3,4]"},
	{"mul", "f32[3,4], f32[4]", "", "f32[3,4]"},
	{"mul", "f32[4], f32[3,4]", "", "! f32[3,4] does not broadcast to f32[4]"},
	{"add", "f32[2|3,4], f32[3]", "", "! f32[3] does not broadcast to f32[2|3,4]"},
	{"add", "f32[2|3,4], f32[2,3,4]", "", "! f32[2,3,4] does not broadcast to f32[2|3,4]"},
	{"add", "f32[2|3,4], f32[2|4]", "", "! f32[2|4] does not broadcast to f32[2|3,4]"},
	{"add", "f32[2|3], bf16[3]", "", "! bf16[3] does not broadcast to f32[2|3]"},
	{"add", "i32[2], i32[2]", "", "! operand is i32[2], wants floats"},
	{"scale", "bf16[2|3]", "{by=2.0}", "bf16[2|3]"},
	{"gelu", "f32[3]", "{tanh=true}", "f32[3]"},
	{"gelu_slope", "f32[3]", "{tanh=true}", "f32[3]"},
	{"relu", "f32[2|]", "", "f32[2|]"},
	{"relu", "i32[3]", "", "! operand is i32[3], wants floats"},
	{"relu_grad", "f32[3], f32[3]", "", "f32[3]"},
	{"silu", "f32[2|3]", "", "f32[2|3]"},
	{"silu_grad", "f32[2|3], f32[2|3]", "", "f32[2|3]"},
	{"dropout", "f32[2|3,4]", drop2, "f32[2|3,4]"},
	{"dropout", "f32[2|2,4]", "{first_row=1, p=0.0, rows=3, site=7}", "f32[2|2,4]"},
	{"dropout", "f32[2|2,4]", "{first_row=2, p=0.0, rows=3, site=7}", "! rows 2:4 of 3 for f32[2|2,4]"},
	{"dropout", "f32[3,4]", drop2, "! rows 0:3 of 3 for f32[3,4]"},
	{"dropout", "f32[2|3,4]", "{first_row=0, p=1.0, rows=3, site=0}", "! p = 1, wants"},
	{"dropout", "f32[2|3,4]", "{first_row=0, p=0.999995, rows=3, site=0}", "! p = 0.999995, wants"},
	{"dropout", "f32[2|3,4]", "{first_row=0, p=NaN, rows=3, site=0}", "! p = NaN, wants"},
	{"dropout", "f32[2|3,4]", "{first_row=0, p=0.5, rows=3, site=-1}", "! site -1"},
	{"dropout", "f32[32768|1024,1024]", "{first_row=0, p=0.5, rows=1024, site=0}", "f32[32768|1024,1024]"},
	{"dropout", "f32[32768|1024,1024]", "{first_row=0, p=0.5, rows=1025, site=0}", "! f32[32768|1024,1024] has too many elements for one dropout site"},
	{"dropout", "f32[2|1,4]", "{first_row=9223372036854775807, p=0.5, rows=3, site=0}", "! attribute first_row is out of range"},
	{"drop_path", "f32[2|3,4]", "{p=0.5, site=0}", "f32[2|3,4]"},
	{"drop_path", "f32[3,4]", "{p=0.5, site=0}", "! operand is f32[3,4], wants a batch"},
	{"drop_path", "f32[2|3,4]", "{p=-0.1, site=0}", "! p = -0.1, wants"},
	{"repeat_tokens", "f32[2|4]", "{tokens=3}", "f32[2|3,4]"},
	{"repeat_tokens", "f32[2|3,4]", "{tokens=3}", "! operand is f32[2|3,4], wants [n|D]"},
	{"pad_tokens", "f32[2|3,4]", "{after=2, before=1}", "f32[2|6,4]"},
	{"pad_tokens", "f32[2|3,4]", "{after=2, before=-1}", "! padding -1, 2"},
	{"broadcast_batch", "f32[]", "{batch=5}", "f32[5|]"},
	{"broadcast_batch", "f32[1]", "{batch=5}", "! operand is f32[1], wants a scalar"},

	{"linear", "f32[2|3,4], f32[5,4]", "", "f32[2|3,5]"},
	{"linear", "f32[2|4], f32[5,4]", "", "f32[2|5]"},
	{"linear", "f32[2|3,4], f32[4,5]", "", "! operand is f32[2|3,4], wants a batch with last dimension 5"},
	{"linear", "f32[2,4], f32[5,4]", "", "! operand is f32[2,4], wants a batch with last dimension 4"},
	{"linear", "f32[2|3,4], f32[4]", "", "! weight is f32[4], wants [N,K]"},
	{"linear_dx", "f32[2|3,5], f32[5,4]", "", "f32[2|3,4]"},
	{"linear_dx", "f32[2|3,4], f32[5,4]", "", "! operand is f32[2|3,4], wants a batch with last dimension 5"},
	{"linear_dw", "f32[2|3,5], f32[2|3,4]", "", "f32[5,4]"},
	{"linear_dw", "bf16[2|5], bf16[2|4]", "", "f32[5,4]"},
	{"linear_dw", "f32[2|3,5], f32[2|2,4]", "", "! operands f32[2|3,5] and f32[2|2,4] differ before the last dimension"},

	{"head_linear", "f32[2|3,8], f32[6,4]", "{heads=2}", "f32[2|3,6]"},
	{"head_linear", "f32[2|8], f32[6,4]", "{heads=2}", "f32[2|6]"},
	{"head_linear", "f32[2|3,8], f32[6,4]", "{heads=4}", "! 4 heads do not divide the weight's 6 rows"},
	{"head_linear", "f32[2|3,8], f32[6,4]", "{heads=0}", "! 0 heads do not divide the weight's 6 rows"},
	{"head_linear", "f32[2|3,6], f32[6,4]", "{heads=2}", "! operand is f32[2|3,6], wants a batch with last dimension 8"},
	{"head_linear_t", "f32[2|3,6], f32[6,4]", "{heads=2}", "f32[2|3,8]"},
	{"head_linear_t", "f32[2|3,8], f32[6,4]", "{heads=2}", "! operand is f32[2|3,8], wants a batch with last dimension 6"},
	{"head_linear_t", "f32[2|3,6], f32[6]", "{heads=2}", "! weight is f32[6], wants [N,K]"},
	{"head_linear_dw", "f32[2|3,6], f32[2|3,8]", "{heads=2}", "f32[6,4]"},
	{"head_linear_dw", "f32[2|3,6], f32[2|3,8]", "{heads=3}", "! 3 heads do not divide 6 and 8"},
	{"head_linear_dw", "f32[2|3,6], f32[2|2,8]", "{heads=2}", "! operands f32[2|3,6] and f32[2|2,8] differ before the last dimension"},

	{"attention", "f32[2|3,4], f32[2|5,4], f32[2|5,4]", att, "f32[2|3,4], f32[2|2,3]"},
	{"attention", "f32[2|3,4], f32[2|5,4], f32[2|3,4]", att, "! k is f32[2|5,4] but v is f32[2|3,4]"},
	{"attention", "f32[2|3,4], f32[2|5,6], f32[2|5,6]", att, "! q is f32[2|3,4] but k is f32[2|5,6]"},
	{"attention", "f32[2|3,5], f32[2|5,5], f32[2|5,5]", att, "! 2 heads do not divide 5"},
	{"attention", "f32[2|4,4], f32[2|4,4], f32[2|4,4]", att, "! query rows 0:4 of 3"},
	{"attention", "f32[2|4], f32[2|4], f32[2|4]", att, "! operand is f32[2|4], wants tokens [n|T,D]"},
	{"attention", "f32[65536|3,2], f32[65536|131072,2], f32[65536|131072,2]", att, "! too many attention weights for one dropout site"},
	{"attention_grad", "f32[2|3,4], f32[2|3,4], f32[2|5,4], f32[2|5,4], f32[2|3,4], f32[2|2,3]", att, "f32[2|3,4], f32[2|5,4], f32[2|5,4]"},
	{"attention_grad", "f32[2|3,4], f32[2|3,4], f32[2|5,4], f32[2|5,4], f32[2|3,4], f32[2|3,2]", att, "! do, o or lse has another type than q asks for"},

	{"latent_attention", "f32[2|3,10], f32[2|7,5]", latent, "f32[2|3,10], f32[2|2,3]"},
	{"latent_attention", "f32[2|3,10], f32[2|7,5]", sums, "f32[2|3,12], f32[2|2,3]"},
	{"latent_attention", "f32[2|3,5], f32[2|7,5]", latent, "! q is f32[2|3,5] but x is f32[2|7,5], with 2 heads"},
	{"latent_attention", "f32[2|4,10], f32[2|7,5]", latent, "! query rows 0:4 of 3"},
	{"latent_attention", "f32[2|10], f32[2|7,5]", latent, "! operand is f32[2|10], wants tokens [n|T,D]"},
	{"latent_attention_grad", "f32[2|3,12], f32[2|3,10], f32[2|7,5], f32[2|3,12], f32[2|2,3]", sums, "f32[2|3,10], f32[2|7,5]"},
	{"latent_attention_grad", "f32[2|3,10], f32[2|3,10], f32[2|7,5], f32[2|3,12], f32[2|2,3]", sums, "! do, o or lse has another type than q and x ask for"},

	{"layernorm", "bf16[2|3,4], f32[4], f32[4]", "{eps=1e-6}", "bf16[2|3,4], f32[2|3], f32[2|3]"},
	{"layernorm", "f32[2|3,4], f32[3,4], f32[3,4]", "{eps=0.0}", "f32[2|3,4], f32[2|], f32[2|]"},
	{"layernorm", "f32[2|3,4], f32[3], f32[3]", "{eps=0.0}", "! gamma f32[3] is no suffix of f32[2|3,4]"},
	{"layernorm", "f32[2|3,4], f32[], f32[]", "{eps=0.0}", "! gamma f32[] is no suffix of f32[2|3,4]"},
	{"layernorm", "f32[2|3,4], f32[4], f32[3,4]", "{eps=0.0}", "! beta is f32[3,4], eps 0"},
	{"layernorm", "f32[2|3,4], f32[4], f32[4]", "{eps=-1.0}", "! beta is f32[4], eps -1"},
	{"layernorm_grad", "f32[2|3,4], f32[2|3,4], f32[4], f32[2|3], f32[2|3]", "", "f32[2|3,4], f32[4], f32[4]"},
	{"layernorm_grad", "f32[2|3,4], f32[2|3,4], f32[4], f32[2|], f32[2|3]", "", "! dy, mean or rstd has another type than x asks for"},
	{"cross_entropy", "f32[2|5], i32[2|]", "{smoothing=0.1}", "f32[2|], f32[2|]"},
	{"cross_entropy", "f32[2|3,5], i32[2|]", "{smoothing=0.1}", "! logits are f32[2|3,5], want [n|C]"},
	{"cross_entropy", "i32[2|5], i32[2|]", "{smoothing=0.1}", "! logits are i32[2|5], want floats"},
	{"cross_entropy", "f32[2|5], f32[2|]", "{smoothing=0.1}", "! label is f32[2|]"},
	{"cross_entropy", "f32[2|5], i32[2|]", "{smoothing=1.0}", "! smoothing 1"},
	{"cross_entropy_grad", "f32[2|5], i32[2|], f32[2|]", "{smoothing=0.1}", "f32[2|5]"},
	{"cross_entropy_grad", "f32[2|5], i32[2|], f32[]", "{smoothing=0.1}", "! dloss is f32[], wants f32[2|]"},
	{"mixed_cross_entropy", "f32[2|5], i32[2|], i32[2|], f32[2|]", "{smoothing=0.1}", "f32[2|], f32[2|]"},
	{"mixed_cross_entropy", "f32[2|5], i32[2|], f32[2|], f32[2|]", "{smoothing=0.1}", "! label2 is f32[2|], mix f32[2|]"},
	{"mixed_cross_entropy", "f32[2|5], i32[2|], i32[2|], f32[]", "{smoothing=0.1}", "! label2 is i32[2|], mix f32[]"},
	{"mixed_cross_entropy", "f32[2|5], i32[2|], i32[2|], f32[2|]", "{smoothing=1.0}", "! smoothing 1"},
	{"mixed_cross_entropy_grad", "f32[2|5], i32[2|], i32[2|], f32[2|], f32[2|]", "{smoothing=0.1}", "f32[2|5]"},
	{"mixed_cross_entropy_grad", "f32[2|5], i32[2|], i32[3|], f32[2|], f32[2|]", "{smoothing=0.1}", "! label2 is i32[3|], mix f32[2|]"},
	{"mixed_cross_entropy_grad", "f32[2|5], i32[2|], i32[2|], f32[2|], f32[]", "{smoothing=0.1}", "! dloss is f32[], wants f32[2|]"},

	{"patchify", "f32[2|3,4,6]", "{patch=2}", "f32[2|6,12]"},
	{"patchify", "f32[2|3,4,6]", "{patch=4}", "! cannot cut f32[2|3,4,6] into patches of 4"},
	{"patchify", "f32[2|3,4,6]", "{patch=0}", "! cannot cut f32[2|3,4,6] into patches of 0"},
	{"prepend_token", "f32[2|3,4], f32[4]", "", "f32[2|4,4]"},
	{"prepend_token", "f32[2|3,4], f32[1,4]", "", "! token is f32[1,4], wants [4]"},
	{"slice_tokens", "f32[2|3,4]", "{from=2, to=3}", "f32[2|1,4]"},
	{"slice_tokens", "f32[2|3,4]", "{from=2, to=4}", "! slice 2:4 of extent 3"},
	{"transpose", "f32[2|3,4]", "", "f32[2|4,3]"},
	{"transpose", "f32[3,4]", "", "! operand is f32[3,4], wants tokens [n|T,D]"},

	{"sum_tokens", "f32[2|3,4]", "", "f32[2|4]"},
	{"sum_tokens", "f32[2|4]", "", "! operand is f32[2|4], wants tokens [n|T,D]"},
	{"sum_leading", "bf16[2|3,4]", "{shape=(4)}", "f32[4]"},
	{"sum_leading", "f32[2|3,4]", "{shape=(3,4)}", "f32[3,4]"},
	{"sum_leading", "f32[2|3,4]", "{shape=(3)}", "! [3] is no suffix of f32[2|3,4]"},
	{"sum_batch", "f32[2|]", "", "f32[]"},
	{"sum_batch", "f32[2|1]", "", "! operand is f32[2|1], wants [n|]"},
	{"sum_squares", "f32[2,3], f32[4]", "", "f32[]"},
	{"clip_scale", "f32[]", "{norm=1.0}", "f32[]"},
	{"clip_scale", "f32[2]", "{norm=1.0}", "! operand is f32[2], wants a scalar"},

	{"sgd", "f32[2,3], f32[2,3], f32[]", "{weight_decay=0.0}", "f32[2,3]"},
	{"sgd", "f32[2,3], f32[3], f32[]", "{weight_decay=0.0}", "! operand 1 is f32[3], wants f32[2,3]"},
	{"sgd", "bf16[2], bf16[2], f32[]", "{weight_decay=0.0}", "! parameter is bf16[2], wants f32"},
	{"sgd", "f32[2|3], f32[2|3], f32[]", "{weight_decay=0.0}", "! operand 0 is f32[2|3], wants"},
	{"sgd_momentum", "f32[3], f32[3], f32[3], f32[]", sgdm, "f32[3], f32[3]"},
	{"sgd_momentum", "f32[3], f32[3], f32[3], f32[3]", sgdm, "! operand 3 is f32[3], wants f32[]"},
	{"adamw", "f32[3], f32[3], f32[3], f32[3], f32[], f32[], f32[]", adamw, "f32[3], f32[3], f32[3]"},
	{"adamw", "f32[3], f32[3], f32[3], f32[3], f32[], f32[]", adamw, "! has 6 operands, wants 7"},
	{"ema", "f32[2,3], f32[2,3], f32[]", "", "f32[2,3]"},
	{"ema", "f32[2,3], f32[3], f32[]", "", "! operand 1 is f32[3], wants f32[2,3]"},
	{"ema", "f32[3], f32[3], f32[3]", "", "! operand 2 is f32[3], wants f32[]"},
}

// Operands in the tests are separated like result types.
func splitTypes(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ", ")
}

func TestShapes(t *testing.T) {
	accepted := map[string]bool{}
	for _, tt := range shapeTests {
		t.Run(tt.op+" "+tt.operands+tt.attrs, func(t *testing.T) {
			checkShape(t, tt.op, tt.operands, tt.attrs, tt.want)
		})
		accepted[tt.op] = accepted[tt.op] || tt.want[0] != '!'
	}
	for _, op := range ir.Ops() {
		if !accepted[op.String()] {
			t.Errorf("no test of what %s accepts", op)
		}
	}
}

// checkShape applies the op to parameters of the operands' types, through the
// parser, which compares the types the text states with the inferred ones.
func checkShape(t *testing.T, op, operands, attrs, want string) {
	t.Helper()
	types := splitTypes(operands)
	stated, reason, refused := want, "", strings.HasPrefix(want, "! ")
	if refused {
		stated, reason = "f32[]", want[2:]
	}
	var text strings.Builder
	text.WriteString("graph g \"\" forward {\n")
	var args, results []string
	for i, ty := range types {
		fmt.Fprintf(&text, "%%%d = param {name=\"a\", type=%s} : %s\n", i, ty, ty)
		args = append(args, fmt.Sprintf("%%%d", i))
	}
	for i := range splitTypes(stated) {
		results = append(results, fmt.Sprintf("%%%d", len(types)+i))
	}
	fmt.Fprintf(&text, "%s = %s %s %s : %s\nreturn }", strings.Join(results, ", "), op, strings.Join(args, ", "), attrs, stated)
	_, err := ir.Parse(text.String())
	switch {
	case !refused && err != nil:
		t.Errorf("%v", err)
	case refused && (err == nil || !strings.Contains(err.Error(), op+": "+reason)):
		t.Errorf("got  %v\nwant %s: %s", err, op, reason)
	}
}
