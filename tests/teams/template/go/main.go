// Renders each line of standard input, {"template": …, "data": …}, as Go does, and prints a line
// {"output": …} or {"error": …} for it.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type request struct {
	Template string         `json:"template"`
	Data     map[string]any `json:"data"`
}

func render(line []byte) (string, error) {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return "", err
	}
	parsed, err := template.New("").Option("missingkey=zero").Parse(asked.Template)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = parsed.Execute(&out, asked.Data)
	return out.String(), err
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		text, err := render(in.Bytes())
		if err != nil {
			out.Encode(map[string]string{"error": err.Error()})
		} else {
			out.Encode(map[string]string{"output": text})
		}
	}
}
