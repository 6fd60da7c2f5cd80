//! Single values of a table: ids, labels, and metadata as JSON.

use arrow_array::Array;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::DataType;

/// A value that is not null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    Integer(i128),
    Float(f64),
    Boolean(bool),
}

/// Whether [`cell`] knows a type.
pub(super) fn has_cells(column: &DataType) -> bool {
    match column {
        DataType::Dictionary(_, values) => has_cells(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            true
        }
        other => other.is_integer() || other.is_floating() || other.is_null(),
    }
}

/// The value of a row; `None` if it is null, or of a type without cells.
pub(super) fn cell(column: &dyn Array, row: usize) -> Option<Cell<'_>> {
    if row >= column.len() || column.is_null(row) {
        return None;
    }
    macro_rules! number {
        ($type:ty, $cell:ident) => {
            column.as_primitive_opt::<$type>().map(|values| Cell::$cell(values.value(row).into()))
        };
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string_opt::<i32>().map(|values| Cell::Text(values.value(row))),
        DataType::LargeUtf8 => column.as_string_opt::<i64>().map(|values| Cell::Text(values.value(row))),
        DataType::Utf8View => column.as_string_view_opt().map(|values| Cell::Text(values.value(row))),
        DataType::Binary => column.as_binary_opt::<i32>().map(|values| Cell::Bytes(values.value(row))),
        DataType::LargeBinary => column.as_binary_opt::<i64>().map(|values| Cell::Bytes(values.value(row))),
        DataType::BinaryView => column.as_binary_view_opt().map(|values| Cell::Bytes(values.value(row))),
        DataType::FixedSizeBinary(_) => {
            column.as_fixed_size_binary_opt().map(|values| Cell::Bytes(values.value(row)))
        }
        DataType::Boolean => column.as_boolean_opt().map(|values| Cell::Boolean(values.value(row))),
        DataType::Int8 => number!(Int8Type, Integer),
        DataType::Int16 => number!(Int16Type, Integer),
        DataType::Int32 => number!(Int32Type, Integer),
        DataType::Int64 => number!(Int64Type, Integer),
        DataType::UInt8 => number!(UInt8Type, Integer),
        DataType::UInt16 => number!(UInt16Type, Integer),
        DataType::UInt32 => number!(UInt32Type, Integer),
        DataType::UInt64 => number!(UInt64Type, Integer),
        DataType::Float16 => number!(Float16Type, Float),
        DataType::Float32 => number!(Float32Type, Float),
        DataType::Float64 => number!(Float64Type, Float),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary_opt()?;
            let Cell::Integer(key) = cell(dictionary.keys(), row)? else { return None };
            cell(dictionary.values().as_ref(), usize::try_from(key).ok()?)
        }
        _ => None,
    }
}

/// One JSON object with the cells of a row, in their order. Numbers that JSON does not have are null.
pub(super) fn json_object<'a>(
    cells: impl Iterator<Item = (&'a str, Option<Cell<'a>>)>,
) -> Result<Vec<u8>, String> {
    let mut object = String::from("{");
    for (name, cell) in cells {
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(&serde_json::Value::from(name).to_string());
        object.push(':');
        let value = match cell {
            None => serde_json::Value::Null,
            Some(Cell::Text(text)) => text.into(),
            Some(Cell::Bytes(bytes)) => {
                let text = str::from_utf8(bytes);
                text.map_err(|_| {
                    format!("the bytes of metadata column {name:?} are not UTF-8, which JSON needs")
                })?
                .into()
            }
            Some(Cell::Float(number)) => number.into(),
            Some(Cell::Boolean(is)) => is.into(),
            Some(Cell::Integer(number)) => {
                object.push_str(&number.to_string());
                continue;
            }
        };
        object.push_str(&value.to_string());
    }
    object.push('}');
    Ok(object.into_bytes())
}
