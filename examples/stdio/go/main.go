// The reference child in Go, with nothing but the standard library.
// It answers as python/agent.py does. Build it with: go build -o agent .
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

type message struct {
	Jsonrpc string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  any             `json:"result,omitempty"`
	Error   *rpcError       `json:"error,omitempty"`
}

type incoming struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *rpcError       `json:"error"`
}

type rpcError struct {
	Code    int            `json:"code"`
	Message string         `json:"message"`
	Data    map[string]any `json:"data,omitempty"`
}

func (e *rpcError) Error() string { return e.Message }

type child struct {
	out      sync.Mutex
	mutex    sync.Mutex
	calls    map[string]context.CancelFunc
	asked    map[string]chan incoming
	last     int
	settings map[string]any
}

// --- what it does --------------------------------------------------------------------------------

type call struct {
	ID      json.RawMessage
	Listens bool
	child   *child
}

func (c *child) answer(ctx context.Context, call call, question string) (any, error) {
	word, rest, _ := strings.Cut(question, " ")
	text := strings.ToUpper(question)
	if mark, ok := c.settings["mark"].(string); ok {
		text += mark
	}
	switch word {
	case "wait":
		seconds, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			return nil, &rpcError{-32000, err.Error(), map[string]any{"kind": "bad_request"}}
		}
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return map[string]any{"text": "waited"}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "busy":
		data := map[string]any{"kind": "rate_limited", "retry_after": 0.01}
		return nil, &rpcError{-32000, "too busy", data}
	case "weather":
		said, err := call.tool(ctx, "get_weather", map[string]any{"city": rest})
		if err != nil {
			return nil, err
		}
		text = rest + ": " + said
	}
	words := strings.Split(text, " ")
	for number, piece := range words {
		if number > 0 {
			piece = " " + piece
		}
		call.chunk(piece)
	}
	usage := map[string]int{"input": len(strings.Fields(question)), "output": len(words)}
	return map[string]any{"text": text, "token_usage": usage}, nil
}

// --- the protocol --------------------------------------------------------------------------------

func (c *child) send(m message) {
	m.Jsonrpc = "2.0"
	line, err := json.Marshal(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	c.out.Lock()
	defer c.out.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func (c call) chunk(text string) {
	if c.Listens {
		params := map[string]any{"invoke_id": c.ID, "text": text}
		c.child.send(message{Method: "chunk", Params: params})
	}
}

func (c call) tool(ctx context.Context, name string, arguments map[string]any) (string, error) {
	answer := make(chan incoming, 1)
	c.child.mutex.Lock()
	c.child.last++
	id := strconv.Itoa(c.child.last)
	c.child.asked[id] = answer
	c.child.mutex.Unlock()
	params := map[string]any{"invoke_id": c.ID, "name": name, "arguments": arguments}
	c.child.send(message{ID: json.RawMessage(id), Method: "tool_call", Params: params})
	select {
	case m := <-answer:
		if m.Error != nil {
			return "", m.Error
		}
		var result struct{ Output string }
		err := json.Unmarshal(m.Result, &result)
		return result.Output, err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (c *child) invoke(m incoming) {
	var params struct {
		Question string `json:"question"`
		OnChunk  bool   `json:"on_chunk"`
	}
	if err := json.Unmarshal(m.Params, &params); err != nil {
		c.send(message{ID: m.ID, Error: &rpcError{Code: -32602, Message: err.Error()}})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.mutex.Lock()
	c.calls[string(m.ID)] = cancel
	c.mutex.Unlock()
	go func() {
		result, err := c.answer(ctx, call{m.ID, params.OnChunk, c}, params.Question)
		cancelled := ctx.Err() != nil
		cancel()
		c.mutex.Lock()
		delete(c.calls, string(m.ID))
		c.mutex.Unlock()
		failure, known := err.(*rpcError)
		switch {
		case err == nil:
			c.send(message{ID: m.ID, Result: result})
		case cancelled:
			c.send(message{ID: m.ID, Error: &rpcError{Code: -32800, Message: "cancelled"}})
		case known:
			c.send(message{ID: m.ID, Error: failure})
		default:
			c.send(message{ID: m.ID, Error: &rpcError{Code: -32000, Message: err.Error()}})
		}
	}()
}

func (c *child) take(m incoming) {
	switch m.Method {
	case "initialize":
		var params struct {
			Settings map[string]any `json:"settings"`
		}
		json.Unmarshal(m.Params, &params)
		c.settings = params.Settings
		can := map[string]bool{"streaming": true, "tools": true}
		about := map[string]any{"protocol_version": 1, "name": "agent.go", "capabilities": can}
		c.send(message{ID: m.ID, Result: about})
	case "invoke":
		c.invoke(m)
	case "cancel":
		var params struct {
			InvokeID json.RawMessage `json:"invoke_id"`
		}
		json.Unmarshal(m.Params, &params)
		c.mutex.Lock()
		cancel := c.calls[string(params.InvokeID)]
		c.mutex.Unlock()
		if cancel != nil {
			cancel()
		}
	case "ping":
		c.send(message{ID: m.ID, Result: struct{}{}})
	case "shutdown":
		c.send(message{ID: m.ID, Result: struct{}{}})
		os.Exit(0)
	case "":
		c.mutex.Lock()
		answer := c.asked[string(m.ID)]
		delete(c.asked, string(m.ID))
		c.mutex.Unlock()
		if answer != nil {
			answer <- m
		}
	default:
		if m.ID != nil {
			error := &rpcError{Code: -32601, Message: "unknown method " + m.Method}
			c.send(message{ID: m.ID, Error: error})
		}
	}
}

func main() {
	c := &child{calls: map[string]context.CancelFunc{}, asked: map[string]chan incoming{}}
	input := bufio.NewReaderSize(os.Stdin, 1<<18)
	for {
		line, err := input.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var m incoming
		if err := json.Unmarshal(line, &m); err != nil {
			id := json.RawMessage("null")
			c.send(message{ID: id, Error: &rpcError{Code: -32700, Message: err.Error()}})
			continue
		}
		c.take(m)
	}
}
