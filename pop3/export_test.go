package pop3

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// Texts are our sentences by name: an array for each, in the order of Languages.
func Texts() map[string]phrase {
	f, err := parser.ParseFile(token.NewFileSet(), "texts.go", nil, 0)
	if err != nil {
		panic(err)
	}
	all := map[string]phrase{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		var p phrase
		for i, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			p[i] = unquote(e.(*ast.BasicLit).Value)
		}
		all[spec.Names[0].Name] = p
		return true
	})
	return all
}

func unquote(s string) string {
	text, err := strconv.Unquote(s)
	if err != nil {
		panic(err)
	}
	return text
}
