//! A text that is no token of ours opens nothing: whatever is read was written so, to the letter.
//!
//! Input: the text of a tenant token, or a tenant to make one of and what to change in it.
#![no_main]

use carillon::codec::tenant_token::{TenantToken, TokenKey};
use carillon::domain::id::TenantId;
use carillon::domain::timestamp::UnixMillis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let key = TokenKey::random([7; 32]);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(token) = key.read(text) {
        assert_eq!(*key.write(&token), text);
    }
    let Some((at, rest)) = input.split_first() else {
        return;
    };
    let Some((change, tenant)) = rest.split_first() else {
        return;
    };
    let tenant = std::str::from_utf8(tenant).ok();
    let Some(Ok(tenant)) = tenant.map(TenantId::parse) else {
        return;
    };
    let token = TenantToken {
        tenant,
        expires_at: UnixMillis(1_772_368_200_000),
    };
    let written = key.write(&token);
    assert_eq!(key.read(&written).as_ref(), Some(&token));
    let mut changed = written.as_bytes().to_vec();
    let at = usize::from(*at) % changed.len();
    changed[at] ^= change;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != *written
    {
        assert_eq!(key.read(&changed), None, "{changed}");
    }
});
