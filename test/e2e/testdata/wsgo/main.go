// SPDX-License-Identifier: Apache-2.0

// Command wsgo opens a WebSocket, sends a word and prints what comes back:
// once, or with "wait" until the connection ends.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/coder/websocket"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := talk(ctx, os.Args[1], os.Args[2], len(os.Args) > 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func talk(ctx context.Context, url, word string, wait bool) error {
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	for {
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			return err
		}
		_, b, err := c.Read(ctx)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
		if !wait {
			return c.Close(websocket.StatusNormalClosure, "")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
