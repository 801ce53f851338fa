//! Writes `openapi.json`.

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = openapi::workspace();
    let document = openapi::document(&workspace)?;
    fs::write(workspace.join("openapi.json"), document)?;
    Ok(())
}
