// Package cxx prints functors as C++: the one expression printer for every
// target. The text works on a vector type V, which is a SIMD register on the
// CPU and a float on CUDA; all that differs stands behind vg_ functions of the
// kernel library.
//
// It decides nothing: order, sharing and addressing come from codegen/plan.
package cxx

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
)

// Member is a field of a printed functor and the expression that sets it.
type Member struct {
	Type, Name, Init string
}

// Args tells how a kernel gets at its arguments.
type Args interface {
	Pointer(i int, t plan.ArgType) string // expression of type [const] float*
	Int(i int) string                     // expression of type uint32_t
	Step(field string) string             // expression of a vg_step field
	StepRef() string                      // expression of type const vg_step&
}

// StructName is the name of a functor's struct.
func StructName(k *plan.Kernel, f *plan.Functor) string {
	return fmt.Sprintf("k%02d_%s", k.Index, f.Name)
}

// Functor prints the functor's struct and returns its members, in the order
// in which an aggregate initializer must give them.
func Functor(w io.Writer, k *plan.Kernel, f *plan.Functor, args Args) []Member {
	p := &printer{k: k, f: f, args: args, member: map[string]bool{}}
	var code strings.Builder
	for _, s := range f.Code {
		code.WriteString("    " + p.stmt(s) + "\n")
	}
	result, params, ret := "", "vg_at at", "void"
	switch f.Kind {
	case plan.Source:
		ret = "V"
		result = fmt.Sprintf("    return %s;\n", p.vector(f.Result))
	case plan.Sink:
		params = "V acc, vg_at at"
	}
	fmt.Fprintf(w, "struct %s {\n", StructName(k, f))
	for _, m := range p.members {
		fmt.Fprintf(w, "  %s %s;\n", m.Type, m.Name)
	}
	fmt.Fprintf(w, "  template <class V> VG_FN %s operator()(%s) const {\n%s%s  }\n};\n", ret, params, code.String(), result)
	return p.members
}

// Init prints the aggregate initializer of a functor.
func Init(members []Member) string {
	parts := make([]string, len(members))
	for i, m := range members {
		parts[i] = m.Init
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

type printer struct {
	k       *plan.Kernel
	f       *plan.Functor
	args    Args
	members []Member
	member  map[string]bool
}

func (p *printer) need(typ, name, init string) string {
	if !p.member[name] {
		p.member[name] = true
		p.members = append(p.members, Member{typ, name, init})
	}
	return name
}

func (p *printer) pointer(i int) string {
	a := p.k.Args[i]
	return p.need(PointerType(a), a.Name, p.args.Pointer(i, a.Type))
}

// PointerType is the C++ type of a pointer argument.
func PointerType(a plan.Arg) string {
	elem := "float"
	switch {
	case a.Type == plan.InI32:
		elem = "int32_t"
	case a.Narrow:
		elem = "vg_bf16"
	}
	if a.Type == plan.Out || a.Type == plan.InOut {
		return elem + "*"
	}
	return "const " + elem + "*"
}

func (p *printer) stmt(s plan.Stmt) string {
	if s.Store != nil {
		return fmt.Sprintf("vg_store(%s, %s, at.n);", p.address(s.Store), p.vector(s.Args[0]))
	}
	return fmt.Sprintf("const V v%d = %s;", s.Temp, p.expr(s))
}

// expressions is the emission table: how each elementwise op is written.
// Ops whose text depends on more than their operands are in expr.
var expressions = map[ir.Op]string{
	ir.OpAdd:      "%s + %s",
	ir.OpMul:      "%s * %s",
	ir.OpRelu:     "vg_relu(%s)",
	ir.OpReluGrad: "vg_relu_grad(%s, %s)",
	ir.OpSilu:     "vg_silu(%s)",
	ir.OpSiluGrad: "vg_silu_grad(%s, %s)",
	ir.OpReshape:  "%s", // an operand that is only passed on
}

// Emits reports whether the printer can write the op inside a functor.
func Emits(op ir.Op) bool {
	switch op {
	case ir.OpScale, ir.OpGelu, ir.OpGeluSlope, ir.OpDropout, ir.OpDropPath,
		ir.OpPrependToken, ir.OpSliceTokens, ir.OpPadTokens, ir.OpRepeatTokens, ir.OpBroadcastBatch:
		return true
	}
	_, ok := expressions[op]
	return ok
}

func (p *printer) expr(s plan.Stmt) string {
	args := make([]any, len(s.Args))
	for i, a := range s.Args {
		args[i] = p.vector(a)
	}
	switch s.Op {
	case ir.OpScale:
		return fmt.Sprintf("%s * V(%s)", args[0], Float(s.Attrs.Get("by").(float64)))
	case ir.OpGelu:
		return fmt.Sprintf("vg_gelu%s(%s)", tanhSuffix(s), args[0])
	case ir.OpGeluSlope:
		return fmt.Sprintf("vg_gelu%s_slope(%s)", tanhSuffix(s), args[0])
	case ir.OpDropout:
		d := p.need("vg_dropout", fmt.Sprintf("draw%d", s.Temp),
			fmt.Sprintf("vg_dropout(%s, %s, %s)", p.args.StepRef(), p.args.Int(s.Site), p.args.Int(s.Thr)))
		return fmt.Sprintf("%s * %s.scale<V>(%s, at.n)", args[0], d, p.dropoutIndex(s))
	case ir.OpDropPath:
		d := p.need("vg_drop_path", fmt.Sprintf("draw%d", s.Temp),
			fmt.Sprintf("vg_drop_path(%s, %s, %s)", p.args.StepRef(), p.args.Int(s.Site), p.args.Int(s.Thr)))
		return fmt.Sprintf("%s * %s.scale<V>(at.sample)", args[0], d)
	case ir.OpPrependToken:
		return fmt.Sprintf("at.token == 0 ? %s : %s", args[1], args[0])
	}
	format, ok := expressions[s.Op]
	if !ok {
		panic("BUG: no expression for " + s.Op.String())
	}
	return fmt.Sprintf(format, args...)
}

func tanhSuffix(s plan.Stmt) string {
	if s.Attrs.Get("tanh").(bool) {
		return "_tanh"
	}
	return ""
}

// dropoutIndex numbers the element as the unpruned tensor would.
func (p *printer) dropoutIndex(s plan.Stmt) string {
	sp := p.f.Space
	if s.Rows == sp.T && s.FirstRow == 0 {
		return fmt.Sprintf("at.row * %d + at.col", sp.Cols)
	}
	return fmt.Sprintf("(int64_t(at.sample) * %d + at.token%s) * %d + at.col", s.Rows, plus(s.FirstRow), sp.Cols)
}

// vector prints a term as a V.
func (p *printer) vector(t plan.Term) string {
	switch t.Kind {
	case plan.Temp:
		return fmt.Sprintf("v%d", t.Temp)
	case plan.Acc:
		return "acc"
	case plan.Literal:
		return "V(" + Float(t.Value) + ")"
	case plan.StepScalar:
		return "V(" + p.need("float", t.Scalar, p.args.Step(t.Scalar)) + ")"
	}
	return p.load(t.Access)
}

func (p *printer) load(a *plan.Access) string {
	if a.Kind == plan.AtScalar {
		return fmt.Sprintf("V(*%s)", p.pointer(a.Arg))
	}
	load := fmt.Sprintf("vg_load<V>(%s, at.n)", p.address(a))
	if a.Kind == plan.Shifted && (a.Shift < 0 || p.f.Space.T+a.Shift > a.Rows) {
		return fmt.Sprintf("(uint32_t(at.token%s) < %du ? %s : V(0.0f))", plus(a.Shift), a.Rows, load)
	}
	return load
}

// address prints the address of the functor's element.
func (p *printer) address(a *plan.Access) string {
	ptr := p.pointer(a.Arg)
	switch a.Kind {
	case plan.AtElement:
		return fmt.Sprintf("%s + at.row * %d + at.col", ptr, a.LD)
	case plan.AtColumn:
		return fmt.Sprintf("%s + at.col", ptr)
	case plan.AtToken:
		return fmt.Sprintf("%s + int64_t(at.token) * %d + at.col", ptr, a.LD)
	case plan.AtRowModulo:
		return fmt.Sprintf("%s + at.row %% %d * %d + at.col", ptr, a.Rows, a.LD)
	case plan.AtSample:
		return fmt.Sprintf("%s + int64_t(at.sample) * %d + at.col", ptr, a.LD)
	case plan.Shifted:
		return fmt.Sprintf("%s + (int64_t(at.sample) * %d + at.token%s) * %d + at.col", ptr, a.Rows, plus(a.Shift), a.LD)
	}
	panic(fmt.Sprintf("BUG: access kind %d", a.Kind))
}

// plus prints " + n", " - n", or nothing for 0.
func plus(n int) string {
	switch {
	case n > 0:
		return fmt.Sprintf(" + %d", n)
	case n < 0:
		return fmt.Sprintf(" - %d", -n)
	}
	return ""
}

// Float prints a float literal that reads back as the nearest float32.
func Float(x float64) string {
	s := strconv.FormatFloat(float64(float32(x)), 'g', -1, 32)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s + "f"
}

// Double prints a double literal.
func Double(x float64) string {
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// Uses lists the layers of a kernel by spec position.
func Uses(file string, k *plan.Kernel) []string {
	var lines []string
	at := map[string]int{}
	for _, u := range k.Uses {
		pos := fmt.Sprintf("%s:%d:%d", file, u.Pos.Line, u.Pos.Col)
		if i, ok := at[pos]; ok {
			lines[i] += ", " + u.Layer
			continue
		}
		at[pos] = len(lines)
		lines = append(lines, strings.TrimRight(pos+" "+u.Layer, " "))
	}
	return lines
}
