package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// Input is what a plan is made from.
type Input struct {
	Name, File string
	Batch      int
	Image      [3]int      // channels, height, width
	Params     []Param     // in the spec's order
	Programs   []*ir.Graph // planned: forward, eval, grad, update
	Names      []string    // of the programs

	// Math is what matrix products multiply in on a CUDA device: fp32, tf32 or
	// bf16. Empty: the plan is for the CPU.
	Math string
}

// Build makes the plan. The graphs must be at ir.StagePlanned.
func Build(in Input) (*Plan, error) {
	layout, err := layoutParams(in.Params, in.Programs)
	if err != nil {
		return nil, err
	}
	p := &Plan{Name: in.Name, File: in.File, Batch: in.Batch, Image: in.Image, Math: in.Math, Layout: layout, Outputs: map[string]Ref{}}
	b := &builder{plan: p, byKey: map[string]*Kernel{}, tables: map[string]int64{}}
	if in.Math == "" {
		b.packing = newPacking(in.Programs)
	}
	for i, g := range in.Programs {
		if err := b.program(in.Names[i], g); err != nil {
			return nil, fmt.Errorf("%s: %w", in.Names[i], err)
		}
	}
	if in.Math != "" {
		p.Device = p.device()
		return p, nil
	}
	if len(b.packing.order) > 0 {
		p.Pack = b.packProgram()
	}
	for _, k := range p.Kernels {
		p.WorkspaceBytes = max(p.WorkspaceBytes, k.workspace())
	}
	return p, nil
}

type builder struct {
	plan     *Plan
	byKey    map[string]*Kernel // kernels by everything that tells them apart
	tables   map[string]int64   // const tables: offset in bytes
	reserved int64              // arena bytes that hold what the host reads
	packing  *packing           // nil: products pack what they need
}

func (b *builder) program(name string, g *ir.Graph) error {
	slots, err := g.Layout()
	if err != nil {
		return err
	}
	pb := &programBuilder{builder: b, g: g, slots: slots, stored: g.Stored(), prog: &Program{Name: name}}
	base := int64(0)
	if g.Output("logits") == nil {
		base = b.reserved // an update must not write over losses still to be read
	}
	pb.base = base
	pb.packs = b.packing != nil && inference(g)
	for _, gr := range g.Groups {
		if gr.Family == ir.FamilyNone {
			continue
		}
		if err := pb.launch(gr); err != nil {
			return err
		}
	}
	for _, o := range []string{"logits", "loss", "correct"} {
		if v := g.Output(o); v != nil {
			ref := pb.ref(v)
			if old, ok := b.plan.Outputs[o]; ok && old != ref {
				return fmt.Errorf("output %s moved between programs", o)
			}
			b.plan.Outputs[o] = ref
			b.reserved = max(b.reserved, ref.Offset+(v.Type.Bytes()+63)/64*64)
		}
	}
	b.plan.ArenaBytes = max(b.plan.ArenaBytes, base+g.Arena)
	b.plan.Programs = append(b.plan.Programs, pb.prog)
	return nil
}

type programBuilder struct {
	*builder
	g      *ir.Graph
	slots  map[*ir.Value]ir.Slot
	stored map[*ir.Value]bool // read by another group or the host
	prog   *Program
	base   int64
	packs  bool // the weights of its products are in packed form
}

// ref is the address of a value's first element.
func (pb *programBuilder) ref(v *ir.Value) Ref {
	s := pb.slots[v]
	off := s.Offset * int64(s.Root.MemoryType().Size())
	param := func(r Region) Ref {
		at, ok := pb.plan.Layout.offset[s.Name]
		if !ok {
			panic(fmt.Sprintf("BUG: no parameter %q", s.Name))
		}
		return Ref{r, int64(at)*4 + off}
	}
	switch s.Home {
	case ir.HomeArena:
		place, ok := pb.g.Places[s.Root]
		if !ok {
			panic(fmt.Sprintf("BUG: %v has no place", s.Root))
		}
		return Ref{Arena, pb.base + place.Offset + off}
	case ir.HomeInput:
		switch s.Name {
		case "label":
			return Ref{Label, 0}
		case "label2":
			return Ref{Label2, 0}
		case "mix":
			return Ref{Mix, 0}
		}
		return Ref{Image, off}
	case ir.HomeParam:
		return param(Params)
	case ir.HomeGrad:
		return param(Grads)
	case ir.HomeState0:
		return param(State0)
	case ir.HomeState1:
		return param(State1)
	case ir.HomeAverage:
		return param(Average)
	case ir.HomeConst:
		return Ref{Const, pb.table(s.Root) + off}
	}
	panic(fmt.Sprintf("BUG: %v (%s) has no memory", v, v.Def.Op))
}

// table computes a sin-cos table once and returns its offset in bytes.
func (b *builder) table(v *ir.Value) int64 {
	T, D := v.Type.Shape[0], v.Type.Shape[1]
	key := fmt.Sprint(T, "x", D)
	if at, ok := b.tables[key]; ok {
		return at
	}
	for len(b.plan.Const)%paramAlign != 0 {
		b.plan.Const = append(b.plan.Const, 0)
	}
	at := int64(len(b.plan.Const)) * 4
	b.plan.Const = append(b.plan.Const, ir.SinCos(T, D)...)
	b.tables[key] = at
	return at
}

// launchBuilder collects the arguments and functors of one launch.
type launchBuilder struct {
	*programBuilder
	gr       *ir.Group
	inGroup  map[*ir.Node]bool
	args     []Arg
	refs     []Ref
	functors []*Functor
}

func (pb *programBuilder) launch(gr *ir.Group) error {
	b := &launchBuilder{programBuilder: pb, gr: gr, inGroup: map[*ir.Node]bool{}}
	for _, n := range gr.Nodes {
		b.inGroup[n] = true
	}
	body, err := b.body()
	if err != nil {
		return err
	}
	main := gr.Anchor
	if main == nil {
		main = gr.Nodes[len(gr.Nodes)-1]
	}
	k := &Kernel{Family: gr.Family, Args: b.args, Body: body, Functors: b.functors, Doc: describe(gr)}
	k.FLOPs, k.Bytes = groupFLOPs(gr), b.traffic()
	if b.plan.Math != "" {
		k.Part = b.device(body)
	}
	k = pb.kernel(k, kernelWord(body, gr), Use{main.Layer, main.Pos})
	pb.prog.Launches = append(pb.prog.Launches, Launch{Kernel: k, Args: b.refs, Layer: main.Layer, Pos: main.Pos, Joined: gr.Joined})
	return nil
}

// kernel is k, or the equal kernel that is there already, with one use more.
func (b *builder) kernel(k *Kernel, word string, use Use) *Kernel {
	key := k.key()
	if old, ok := b.byKey[key]; ok {
		k = old
	} else {
		k.Index = len(b.plan.Kernels)
		k.Name = fmt.Sprintf("k%02d_%s", k.Index, word)
		b.byKey[key] = k
		b.plan.Kernels = append(b.plan.Kernels, k)
	}
	if !slices.Contains(k.Uses, use) {
		k.Uses = append(k.Uses, use)
	}
	return k
}

// arg declares an argument and returns its index.
func (b *launchBuilder) arg(name string, t ArgType, ref Ref) int {
	base, i := name, 2
	for slices.ContainsFunc(b.args, func(a Arg) bool { return a.Name == name }) {
		name = fmt.Sprintf("%s%d", base, i)
		i++
	}
	b.args = append(b.args, Arg{Name: name, Type: t})
	b.refs = append(b.refs, ref)
	return len(b.args) - 1
}

func (b *launchBuilder) in(v *ir.Value) int {
	t := In
	if v.Type.DType == ir.I32 {
		t = InI32
	}
	return b.describe(b.arg(valueName(b.slots[v], v, "in"), t, b.ref(v)), v)
}

func (b *launchBuilder) out(v *ir.Value) int {
	i := b.describe(b.arg(valueName(b.slots[v], v, "out"), Out, b.ref(v)), v)
	b.args[i].Span = Span{Rows: v.Type.Rows(), Cols: v.Type.Last(), LD: b.slots[v].Stride, PerSample: v.Type.Batched}
	return i
}

// describe notes what argument i points at.
func (b *launchBuilder) describe(i int, v *ir.Value) int {
	b.args[i].Narrow = b.slots[v].Root.Narrow == ir.BF16
	b.args[i].Aliased = b.slots[v].Home == ir.HomeGrad && b.args[i].Type == In // gradients that are added to
	return i
}

// weight is the weight operand of a product: the bf16 copy of the parameters
// where products multiply in bf16.
func (b *launchBuilder) weight(v *ir.Value) int {
	i := b.in(v)
	if b.plan.Math == "bf16" && b.slots[v].Home == ir.HomeParam {
		b.args[i].Narrow = true
		b.refs[i] = Ref{Half, b.refs[i].Offset / 2}
	}
	return i
}

// outIfStored is out, or -1 for a value that nobody reads.
func (b *launchBuilder) outIfStored(v *ir.Value) int {
	if !b.stored[v] {
		return -1
	}
	return b.out(v)
}

func (b *launchBuilder) imm(name string, x int64) int { return b.arg(name, Int, Ref{Imm, x}) }

// valueName names an argument for the reader: a parameter by the last part of
// its name, anything else by the op that made it. Layers that share a kernel
// must give the same name, so nothing else goes in.
func valueName(s ir.Slot, v *ir.Value, dir string) string {
	switch s.Home {
	case ir.HomeParam:
		return lastPart(s.Name)
	case ir.HomeGrad:
		return "d_" + lastPart(s.Name)
	case ir.HomeInput:
		return s.Name
	case ir.HomeConst:
		return "table"
	}
	def := v.Def
	for def.Op == ir.OpReshape || def.Op == ir.OpSliceLast {
		def = def.Args[0].Def
	}
	names := def.Op.Info().Results
	name := def.Op.String()
	if len(names) > 1 && v.Def == def {
		name = names[v.Out]
	}
	return name + "_" + dir
}

// lastPart is the last component of a dotted name as an identifier that C++
// lets a variable have and that means nothing else in emitted code.
func lastPart(name string) string {
	name = name[strings.LastIndexByte(name, '.')+1:]
	id := strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
	if reserved.MatchString(id) {
		id = "param_" + strings.Trim(id, "_")
	}
	return id
}

// reserved matches what a parameter's name must not be: numbers, what the
// language or a C header may claim, and the printers' own names.
var reserved = regexp.MustCompile(`^(|[0-9].*|.*__.*|_.*|vg_.*|v[0-9]+|draw[0-9]+|k[0-9]+_.*|[A-Z].*|c|at|acc|a|b|x|dy|body|source|epilogue|row_sum|logits|step|errno|.*_t|lr|inv_n|bias_corr[12]|ema_weight|.*_(in|out|site|thr)[0-9]*` +
	`|alignas|alignof|and|and_eq|asm|auto|bitand|bitor|bool|break|case|catch|char|char8_t|char16_t|char32_t|class|compl|concept|const|consteval|constexpr|constinit|const_cast|continue|co_await|co_return|co_yield|decltype|default|delete|do|double|dynamic_cast|else|enum|explicit|export|extern|false|float|for|friend|goto|if|inline|int|long|mutable|namespace|new|noexcept|not|not_eq|nullptr|operator|or|or_eq|private|protected|public|register|reinterpret_cast|requires|return|short|signed|sizeof|static|static_assert|static_cast|struct|switch|template|this|thread_local|throw|true|try|typedef|typeid|typename|typeof|union|unix|linux|unsigned|using|virtual|void|volatile|wchar_t|while|xor|xor_eq)$`)

// operand reads v through a functor if the group computes it, else from memory.
func (b *launchBuilder) operand(v *ir.Value, name string) Operand {
	if !b.inGroup[v.Def] && v.Def.Op != ir.OpConst {
		return Operand{Arg: b.in(v), LD: b.slots[v].Stride}
	}
	fb := b.newFunctor(name, Source, SpaceOf(v.Type))
	for _, n := range b.before(v) {
		fb.add(n)
	}
	fb.f.Result = fb.term(v)
	return Operand{Functor: fb.f, Arg: -1}
}

// before lists the group's nodes that v is computed from, in order.
func (b *launchBuilder) before(v *ir.Value) []*ir.Node {
	need := map[*ir.Node]bool{}
	var visit func(v *ir.Value)
	visit = func(v *ir.Value) {
		if b.inGroup[v.Def] && !need[v.Def] {
			need[v.Def] = true
			for _, a := range v.Def.Args {
				visit(a)
			}
		}
	}
	visit(v)
	return slices.DeleteFunc(slices.Clone(b.gr.Nodes), func(n *ir.Node) bool { return !need[n] })
}

// epilogue makes the sink that takes result, and does all the group's nodes
// that follow from it.
func (b *launchBuilder) epilogue(name string, result *ir.Value, space Space) *Functor {
	fb := b.newFunctor(name, Sink, space)
	fb.define(result, Term{Kind: Acc})
	follows := map[*ir.Node]bool{result.Def: true}
	for _, n := range b.gr.Nodes {
		if !isAnchorOp(n) && slices.ContainsFunc(n.Args, func(a *ir.Value) bool { return follows[a.Def] }) {
			follows[n] = true
			fb.add(n)
		}
	}
	return fb.f
}

func isAnchorOp(n *ir.Node) bool {
	switch n.Op.Info().Class {
	case ir.ClassPointwise:
		return false
	}
	return n.Op != ir.OpPrependToken && n.Op != ir.OpSliceTokens
}

// key tells kernels apart: loop structure, functors, argument types and names.
func (k *Kernel) key() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %T %s|", k.Family, k.Body, bodyKey(k.Body))
	for _, f := range k.Functors {
		f.key(&s)
	}
	fmt.Fprintf(&s, "|%+v", k.Args)
	return s.String()
}
