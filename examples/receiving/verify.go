// Verifies the signatures of Carillon's webhooks, in both formats.
//
// verify standard|leicbit SECRET [NOW] < captured.json
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Tolerance in seconds. An older request may be one that somebody sends again.
const Tolerance = 5 * 60

var (
	errSecret    = errors.New("malformed secret")
	errTolerance = errors.New("timestamp outside tolerance")
	errNoMatch   = errors.New("no signature matches")

	hexSecret = regexp.MustCompile(`^[0-9a-f]{64}$`)
	seconds   = regexp.MustCompile(`^[0-9]{1,12}$`)
)

// VerifyStandard takes `whsec_…` or `whpk_…`, the headers and the raw body.
func VerifyStandard(secret string, headers http.Header, body []byte, now time.Time) error {
	key, public, err := standardKey(secret)
	if err != nil {
		return err
	}
	var values [3]string
	for i, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		if values[i] = headers.Get(name); values[i] == "" {
			return fmt.Errorf("missing header %s", name)
		}
	}
	id, timestamp, signatures := values[0], values[1], strings.Split(values[2], " ")
	if err := checkTimestamp("webhook-timestamp", timestamp, now); err != nil {
		return err
	}
	content := append([]byte(id+"."+timestamp+"."), body...)
	if public {
		for _, signature := range signatures {
			if fitsEd25519(key, content, signature) {
				return nil
			}
		}
		return errNoMatch
	}
	return contains(signatures, "v1,"+base64.StdEncoding.EncodeToString(digest(key, content)))
}

// VerifyLeicbit takes the secret in hex, the headers and the raw body.
func VerifyLeicbit(secret string, headers http.Header, body []byte, now time.Time) error {
	if !hexSecret.MatchString(secret) {
		return errSecret
	}
	value := headers.Get("x-leicbit-signature")
	if value == "" {
		return errors.New("missing header x-leicbit-signature")
	}
	parts := strings.Split(value, ",")
	if !strings.HasPrefix(parts[0], "t=") {
		return errors.New("malformed header x-leicbit-signature")
	}
	timestamp := strings.TrimPrefix(parts[0], "t=")
	if err := checkTimestamp("x-leicbit-signature", timestamp, now); err != nil {
		return err
	}
	// The key is the hex text itself, not the bytes that it stands for.
	content := append([]byte(timestamp), body...)
	return contains(parts[1:], "v1="+hex.EncodeToString(digest([]byte(secret), content)))
}

func standardKey(secret string) (key []byte, public bool, err error) {
	prefix := "whsec_"
	if public = strings.HasPrefix(secret, "whpk_"); public {
		prefix = "whpk_"
	}
	key, err = base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(secret, prefix))
	// An empty key, of a setting that is missing, is one that everybody has.
	if err != nil || !strings.HasPrefix(secret, prefix) || len(key) != 32 {
		return nil, false, errSecret
	}
	return key, public, nil
}

func checkTimestamp(name, timestamp string, now time.Time) error {
	if !seconds.MatchString(timestamp) {
		return fmt.Errorf("malformed header %s", name)
	}
	at, _ := strconv.ParseInt(timestamp, 10, 64) // Twelve digits always fit.
	if away := now.Unix() - at; away > Tolerance || away < -Tolerance {
		return errTolerance
	}
	return nil
}

func digest(key, content []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	return mac.Sum(nil)
}

// contains says whether one of them is expected, in a time that does not tell how much of it fits.
func contains(signatures []string, expected string) error {
	for _, signature := range signatures {
		if hmac.Equal([]byte(signature), []byte(expected)) {
			return nil
		}
	}
	return errNoMatch
}

func fitsEd25519(key, content []byte, signature string) bool {
	if !strings.HasPrefix(signature, "v1a,") {
		return false
	}
	given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1a,"))
	return err == nil && ed25519.Verify(key, content, given)
}

func main() {
	formats := map[string]func(string, http.Header, []byte, time.Time) error{
		"standard": VerifyStandard,
		"leicbit":  VerifyLeicbit,
	}
	now, err := time.Now(), error(nil)
	if len(os.Args) == 4 {
		var at int64
		at, err = strconv.ParseInt(os.Args[3], 10, 64)
		now = time.Unix(at, 0)
	}
	if err != nil || len(os.Args) < 3 || len(os.Args) > 4 || formats[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "verify standard|leicbit SECRET [NOW] < captured.json")
		os.Exit(2)
	}
	var captured struct {
		Headers map[string]any
		Body    *string
	}
	input, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(input, &captured)
	}
	if err != nil || captured.Headers == nil || captured.Body == nil {
		fail("not a captured request")
	}
	headers := http.Header{}
	for name, value := range captured.Headers {
		if text, ok := value.(string); ok {
			headers.Set(name, text)
		}
	}
	if err := formats[os.Args[1]](os.Args[2], headers, []byte(*captured.Body), now); err != nil {
		fail(err.Error())
	}
	fmt.Println("valid")
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
