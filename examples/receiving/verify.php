<?php
// Verifies the signatures of Carillon's webhooks, in both formats.
//
// verify.php standard|leicbit SECRET [NOW] < captured.json

declare(strict_types=1);

const TOLERANCE = 5 * 60; // Seconds. An older request may be one that somebody sends again.

/** Why a request is not taken. */
final class Refused extends Exception
{
}

/** Takes `whsec_…` or `whpk_…`, headers (names in lower case) and the raw body. */
function verify_standard(string $secret, array $headers, string $body, ?int $now = null): void
{
    $key = standard_key($secret);
    $id = header_of($headers, 'webhook-id');
    $timestamp = header_of($headers, 'webhook-timestamp');
    $signatures = explode(' ', header_of($headers, 'webhook-signature'));
    check_timestamp('webhook-timestamp', $timestamp, $now);
    $content = "$id.$timestamp.$body";
    if (str_starts_with($secret, 'whpk_')) {
        $fits = array_filter($signatures, fn($given) => fits_ed25519($key, $content, $given)) !== [];
    } else {
        $digest = hash_hmac('sha256', $content, $key, true);
        $fits = contains($signatures, 'v1,' . base64_encode($digest));
    }
    if (!$fits) {
        throw new Refused('no signature matches');
    }
}

/** Takes the secret in hex, headers (names in lower case) and the raw body. */
function verify_leicbit(string $secret, array $headers, string $body, ?int $now = null): void
{
    if (!preg_match('/^[0-9a-f]{64}$/D', $secret)) {
        throw new Refused('malformed secret');
    }
    $signatures = explode(',', header_of($headers, 'x-leicbit-signature'));
    $first = array_shift($signatures);
    if (!str_starts_with($first, 't=')) {
        throw new Refused('malformed header x-leicbit-signature');
    }
    $timestamp = substr($first, 2);
    check_timestamp('x-leicbit-signature', $timestamp, $now);
    // The key is the hex text itself, not the bytes that it stands for.
    if (!contains($signatures, 'v1=' . hash_hmac('sha256', $timestamp . $body, $secret))) {
        throw new Refused('no signature matches');
    }
}

function standard_key(string $secret): string
{
    $known = preg_match('/^(?:whsec|whpk)_(.*)$/D', $secret, $parts);
    $key = $known ? base64_decode($parts[1], true) : false;
    // An empty key, of a setting that is missing, is one that everybody has.
    if ($key === false || strlen($key) !== 32) {
        throw new Refused('malformed secret');
    }
    return $key;
}

function header_of(array $headers, string $name): string
{
    $value = $headers[$name] ?? null;
    if (!is_string($value) || $value === '') {
        throw new Refused("missing header $name");
    }
    return $value;
}

function check_timestamp(string $name, string $timestamp, ?int $now): void
{
    if (!preg_match('/^[0-9]{1,12}$/D', $timestamp)) {
        throw new Refused("malformed header $name");
    }
    if (abs(($now ?? time()) - (int) $timestamp) > TOLERANCE) {
        throw new Refused('timestamp outside tolerance');
    }
}

/** Whether one of them is `$expected`, in a time that does not tell how much of it fits. */
function contains(array $signatures, string $expected): bool
{
    foreach ($signatures as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}

function fits_ed25519(string $key, string $content, string $signature): bool
{
    $given = str_starts_with($signature, 'v1a,') ? base64_decode(substr($signature, 4), true) : false;
    return $given !== false
        && strlen($given) === SODIUM_CRYPTO_SIGN_BYTES
        && sodium_crypto_sign_verify_detached($given, $content, $key);
}

function main(array $arguments): int
{
    $formats = ['standard' => 'verify_standard', 'leicbit' => 'verify_leicbit'];
    [$format, $secret, $now] = array_pad($arguments, 3, null);
    $verify = $formats[$format ?? ''] ?? null;
    $wrong = count($arguments) > 3 || !ctype_digit($now ?? '0');
    if ($verify === null || $secret === null || $wrong) {
        fwrite(STDERR, "verify.php standard|leicbit SECRET [NOW] < captured.json\n");
        return 2;
    }
    $captured = json_decode(stream_get_contents(STDIN));
    $headers = $captured->headers ?? null;
    $body = $captured->body ?? null;
    if (!is_object($headers) || !is_string($body)) {
        fwrite(STDERR, "not a captured request\n");
        return 1;
    }
    try {
        $headers = array_change_key_case((array) $headers);
        $verify($secret, $headers, $body, $now === null ? null : (int) $now);
    } catch (Refused $refused) {
        fwrite(STDERR, $refused->getMessage() . "\n");
        return 1;
    }
    echo "valid\n";
    return 0;
}

if (realpath($_SERVER['SCRIPT_FILENAME']) === __FILE__) {
    exit(main(array_slice($argv, 1)));
}
